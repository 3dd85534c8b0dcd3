"""Trials whose node is lost are neither failed nor different."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ray_jobs.lost_nodes import LOST_AT, TOLD_BEFORE
from tests.ray_jobs.nodes import run_with_own_cluster

pytestmark = pytest.mark.ray(seconds=150)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Any:
    storage = tmp_path_factory.mktemp("lost")
    done = run_with_own_cluster("tests.ray_jobs.lost_nodes", storage)
    return json.loads((storage / "trials.json").read_text()) | {"told": done.out}


def test_all_trials_are_trained_to_their_end(trials: Any) -> None:
    assert [
        (trial["number"], trial["state"], trial["losses"]) for trial in trials["disturbed"]
    ] == [(number, "finished", int(number in LOST_AT)) for number in (1, 2, 3, 4)]
    for number in LOST_AT:
        why = "its node will be taken away" if number == TOLD_BEFORE else "node "
        told = f"trial {number} lost its workers and goes on with others: {why}"
        assert told in trials["told"], trials["told"]
    assert "best of 4" in trials["told"]
    # Not what Ray prints of a node: pages of its log and its state.
    assert "note: a node was lost" in trials["told"]
    assert "raylet" not in trials["told"]
    assert "state-dump" not in trials["told"]


def test_they_have_the_results_of_a_search_without_a_loss(trials: Any) -> None:
    kept = ("number", "parameters", "best_epoch", "epochs")
    found, expected = (
        [{key: trial[key] for key in kept} for trial in trials[name]]
        for name in ("disturbed", "undisturbed")
    )
    assert found == expected
    assert [epoch["epoch"] for epoch in found[1]["epochs"]] == [1, 2, 3, 4, 5, 6]
