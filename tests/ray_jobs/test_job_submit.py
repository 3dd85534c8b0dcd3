"""``ray start --head`` and ``ray job submit`` for real, with token authentication left on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ray_jobs.nodes import Head, head_node
from tests.support import TINY, left_after

pytestmark = pytest.mark.ray(seconds=180)

MARK = "ray-job-submit"


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    with head_node(MARK, tmp_path, num_cpus=2) as started:
        yield started


@pytest.mark.timeout(600)
def test_the_pipeline_runs_as_a_submitted_job(head: Head, tmp_path: Path) -> None:
    # A relative place: a job's working folder is temporary, so it must end up in the home folder.
    storage = tmp_path / "out"
    settings = [part for s in (*TINY, "storage=out") for part in ("--set", s)]

    done = head.job(
        "submit",
        *("--working-dir", ".", "--"),
        *("python", "-m", "ray_jobs.pipeline", "--config", "configs/quickstart.toml", *settings),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    metrics = json.loads((storage / "runs" / "tiny" / "metrics.json").read_text())
    assert metrics["test"]["num_ratings"] == 400
    assert (storage / "runs" / "tiny" / "report.html").exists()

    # Without the token the cluster must not answer: authentication was really on.
    stranger = replace(head, environment=head.environment | {"RAY_AUTH_TOKEN": "f" * 64})
    refused = stranger.job("list")
    assert refused.returncode != 0
    assert "uthenticat" in refused.stdout + refused.stderr


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert left_after(MARK, 30) == {}
