"""A search on a cluster without workers, whose autoscaler adds nodes for it and takes them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ray_jobs.nodes import Head, head_node
from tests.support import TINY

pytestmark = pytest.mark.ray(seconds=120)

MARK = "elastic"
MAX_NODES = 2

NODES = """
import json, time, ray
ray.init(address={gcs!r}, logging_level="error")
workers = lambda: [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
deadline = time.monotonic() + {patience}
while workers() and time.monotonic() < deadline:
    time.sleep(0.5)
print("NODES", len(workers()), len(ray.nodes()) - 1)
"""
"""How many nodes have a CPU, once none has or patience is at its end, and how many ever had."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, at_the_end: ExitStack) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    with head_node(MARK, home, 0, at_the_end, max_nodes=MAX_NODES) as head:
        yield head


def worker_nodes(head: Head, folder: Path, patience: float) -> tuple[int, int]:
    """Nodes with a CPU that are there now, and that there ever were."""
    done = head.run_python(NODES.format(gcs=head.gcs, patience=patience), folder)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("NODES"))
    now, ever = map(int, line.split()[1:])
    return now, ever


@pytest.mark.timeout(400)
def test_nodes_come_for_a_search_and_leave_after_it(cluster: Head, tmp_path: Path) -> None:
    assert worker_nodes(cluster, tmp_path, 0) == (0, 0)

    done = cluster.run_module(
        "ray_jobs.tune",
        *TINY,
        "task=rating",
        "train.epochs=60",
        "train.batch_size=8",  # seconds, in which the second node comes
        "train.patience=0",
        "tune.grace_epochs=60",
        "tune.num_trials=8",
        f"storage={tmp_path / 'storage'}",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "best of 8" in done.stdout
    now, ever = worker_nodes(cluster, tmp_path, 90)
    assert now == 0
    assert ever >= MAX_NODES


def test_a_worker_that_no_node_could_hold_is_refused_at_once(cluster: Head, tmp_path: Path) -> None:
    done = cluster.run_module(
        "ray_jobs.tune", *TINY, "scaling.cpus_per_worker=2", f"storage={tmp_path}"
    )

    assert done.returncode == 1
    assert "workers of 2 CPU each do not fit the cluster, which has room for 0" in done.stderr
    assert "no autoscaler is known that may add nodes for them" in done.stderr
    assert "Traceback" not in done.stderr
