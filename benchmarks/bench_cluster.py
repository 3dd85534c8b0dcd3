"""What trials cost the head of a cluster: private memory for each that runs at a time.

    python benchmarks/bench_cluster.py [--workers 8] [--nodes 1] [--json]

Starts a head without CPUs and nodes with the workers, all on this machine, and has the quickstart's
data trained by all workers at a time. Memory is what processes share with no other, as Linux tells
it, less what the head took before."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import ray
from ray.cluster_utils import Cluster

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ray_jobs.cli import load_config  # noqa: E402
from ray_jobs.cluster.resources import GroupPlan  # noqa: E402
from ray_jobs.results.run import Workspace  # noqa: E402
from ray_jobs.stages.graph import workers_of  # noqa: E402

CONFIG: Final = REPOSITORY / "configs" / "quickstart.toml"
_SECONDS_TO_START: Final = 300
ROLLUP: Final = "smaps_rollup"


def private(node: Any) -> dict[str, float]:
    """Private megabytes of a node's Ray processes, by what they are."""
    (raylet,) = node.all_processes["raylet"]
    kilobytes: Counter[str] = Counter()
    for process in descendants(raylet.process.pid):
        try:
            title = (process / "cmdline").read_text().split("\0")[0].strip()
            shares = re.findall(r"^Private_\w+: +(\d+) kB$", (process / ROLLUP).read_text(), re.M)
        except OSError:  # it has ended
            continue
        if title.startswith("ray::"):
            kilobytes[title] += sum(map(int, shares))
    return {title: amount / 1000 for title, amount in kilobytes.items()}


def descendants(pid: int) -> Iterator[Path]:
    """Folders in ``/proc`` of the processes that a process has started, and these."""
    for task in Path("/proc", str(pid), "task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            yield Path("/proc", str(child))
            yield from descendants(child)


def measure(num_nodes: int, workers: int, storage: str) -> dict[str, Any]:
    """Memory of the head and of the other nodes, with workers that wait for trials."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    nodes = [cluster.add_node(num_cpus=workers // num_nodes) for _ in range(num_nodes)]
    ray.init(address=cluster.address, log_to_driver=False)
    settings = [f"storage={storage}", f"ray.address={cluster.address}", "scaling.num_workers=1"]
    config = load_config([str(CONFIG)], settings)
    try:
        before = sum(private(cluster.head_node).values())
        started = time.monotonic()
        with workers_of(Workspace(config)) as pool:
            queue = pool.queue(GroupPlan.of(config), workers)
            while ray.get(queue.num_ready.remote()) < workers:
                if time.monotonic() - started > _SECONDS_TO_START:
                    raise TimeoutError(f"{workers} workers have not started")
                time.sleep(0.5)
            seconds = time.monotonic() - started
            head = private(cluster.head_node)
            others = [private(node) for node in nodes]
    finally:
        ray.shutdown()
        cluster.shutdown()
    total = sum(sum(each.values()) for each in others)
    return {
        "workers": workers,
        "nodes": num_nodes,
        "seconds_to_start": seconds,
        "head_mb_per_trial": (sum(head.values()) - before) / workers,
        "node_mb_per_trial": total / workers,
        "head_mb": head,
        "first_node_mb": others[0],
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=8, help="trials at a time")
    parser.add_argument("--nodes", type=int, default=1, help="nodes that they are on")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as folder:
        results = measure(options.nodes, options.workers, folder)
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:24}{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
