"""A search on a cluster without workers, whose autoscaler adds nodes for it and takes them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ray_jobs.nodes import Head, head_node
from tests.support import TINY, ends, processes_with

pytestmark = pytest.mark.ray(seconds=200)

MARK = "elastic"
MAX_NODES = 2
HEAD = "--head"

NODES = """
import ray
ray.init(address={gcs!r}, logging_level="error")
print("NODES", len(ray.nodes()) - 1)
"""
"""How many nodes there ever were, beside the head."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, at_the_end: ExitStack) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    with head_node(MARK, home, 0, at_the_end, max_nodes=MAX_NODES) as head:
        yield head


def num_nodes(head: Head, folder: Path) -> int:
    """Worker nodes that there ever were."""
    done = head.run_python(NODES.format(gcs=head.gcs), folder)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("NODES"))
    return int(line.split()[1])


def worker_processes() -> list[int]:
    """Raylets of the worker nodes, which are processes of this machine."""
    found = processes_with(MARK)
    return [
        i for i, command in found.items() if "/raylet/raylet " in command and HEAD not in command
    ]


@pytest.mark.timeout(600)
def test_nodes_come_for_a_search_and_leave_after_it(cluster: Head, tmp_path: Path) -> None:
    assert worker_processes() == []

    done = cluster.run_module(
        "ray_jobs.tune",
        *TINY,
        "task=rating",
        "train.epochs=40",
        "train.batch_size=8",  # seconds, in which the second node comes
        "train.patience=0",
        "tune.grace_epochs=40",
        "tune.num_trials=4",
        f"storage={tmp_path / 'storage'}",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "best of 4" in done.stdout
    for process in worker_processes():
        assert ends(process, 90)
    assert worker_processes() == []
    assert num_nodes(cluster, tmp_path) >= MAX_NODES


def test_a_worker_that_no_node_could_hold_is_refused_at_once(cluster: Head, tmp_path: Path) -> None:
    done = cluster.run_module(
        "ray_jobs.tune", *TINY, "scaling.cpus_per_worker=2", f"storage={tmp_path}"
    )

    assert done.returncode == 1
    assert "workers of 2 CPU each do not fit the cluster, which has room for 0" in done.stderr
    assert "no autoscaler is known that may add nodes for them" in done.stderr
    assert "Traceback" not in done.stderr
