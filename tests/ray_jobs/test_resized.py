"""A model whose number of workers changes while it is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ray_jobs.nodes import run_with_own_cluster
from tests.ray_jobs.resized import EPOCHS, GROWS_AFTER, SHRINKS_AFTER

pytestmark = pytest.mark.ray(seconds=170)


def test_it_is_trained_as_if_the_number_had_not_changed(tmp_path: Path) -> None:
    done = run_with_own_cluster("tests.ray_jobs.resized", tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    alone, resized = found["alone"], found["resized"]

    # The epoch after a change was over before it, or is trained again.
    counts = {int(epoch): count for epoch, count in resized["workers"].items()}
    assert list(counts) == list(range(1, EPOCHS + 1))
    assert counts[GROWS_AFTER] == 1
    assert counts[SHRINKS_AFTER] == 2
    assert counts[EPOCHS] == 1
    told = done.out.count("goes on with others: their number has changed")
    assert told == 1, done.out
    assert len(alone["validation_rmse"]) == EPOCHS
    assert resized["validation_rmse"] == pytest.approx(alone["validation_rmse"], rel=1e-4)
    for name in ("rmse", "mae", "r2"):
        assert resized["test"][name] == pytest.approx(alone["test"][name], rel=1e-3)
