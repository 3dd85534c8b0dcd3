"""What trials cost the head of a cluster: private memory for each that runs at a time.

    python benchmarks/bench_cluster.py [--workers 8] [--nodes 1] [--json]
    python benchmarks/bench_cluster.py --workers 2 --nodes 2 --kill-every 30 --trials 60
    python benchmarks/bench_cluster.py --workers 2 --nodes 2 --grow-after 90 --trials 60

Starts a head without CPUs and nodes with the workers, all on this machine, and has a search run
that many trials at a time. Memory is what processes share with no other, as Linux tells it: the
most that the head took during the search, less what it took before. With ``--kill-every`` a node is
killed every so many seconds, and another one added; what counts then is how the trials ended.
With ``--grow-after`` the search begins on one node, and the others are added so many seconds after
its first trial has ended; what counts is ``growth``: the trials an hour after that as a multiple of
those before. All trials are then trained to their last epoch."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import ray
from ray.cluster_utils import Cluster

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ray_jobs.cli import load_config  # noqa: E402
from ray_jobs.cluster.session import ensure_ray  # noqa: E402
from ray_jobs.results.run import Workspace  # noqa: E402
from ray_jobs.search.resume import Recorder  # noqa: E402
from ray_jobs.stages.graph import workers_of  # noqa: E402
from ray_jobs.stages.preparation import ingest, preprocess  # noqa: E402
from ray_jobs.stages.tuning import open_records, search  # noqa: E402

CONFIG: Final = REPOSITORY / "configs" / "quickstart.toml"
ROLLUP: Final = "smaps_rollup"
_EQUALLY_LONG: Final = (
    "tune.scheduler=none",
    "train.epochs=20",
    "train.patience=0",
    "train.batch_size=32",
    "tune.space={ 'train.learning_rate' = { low = 1e-3, high = 2e-3, log = true } }",
)


def private(node: Any) -> dict[str, float]:
    """Private megabytes of a node's Ray processes, by what they are."""
    raylets = node.all_processes.get("raylet")
    if not raylets:  # it was killed
        return {}
    kilobytes: Counter[str] = Counter()
    for process in descendants(raylets[0].process.pid):
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


class Sampler:
    """Reads the memory of a cluster every second, and keeps the most that its head took."""

    def __init__(self, cluster: Cluster, nodes: list[Any]) -> None:
        self._head, self._nodes = cluster.head_node, nodes
        self.head: dict[str, float] = {}
        self.nodes: list[dict[str, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(1):
            head = private(self._head)
            if sum(head.values()) > sum(self.head.values()):
                self.head, self.nodes = head, [private(node) for node in list(self._nodes)]


class Killer:
    """Kills a node now and then, and adds another one."""

    def __init__(
        self, cluster: Cluster, nodes: list[Any], cpus: int, seconds: float, limit: float
    ) -> None:
        self._cluster, self._nodes, self._cpus = cluster, nodes, cpus
        self._seconds, self._end = seconds, time.monotonic() + limit
        self._next = time.monotonic() + seconds
        self.count = 0
        seen = Recorder.on_trial_result

        def on_trial_result(recorder: Recorder, *arguments: Any, **named: Any) -> None:
            seen(recorder, *arguments, **named)
            self._look()

        # In the main thread: Ray's ``Cluster`` sets handlers of signals, which others cannot.
        Recorder.on_trial_result = on_trial_result  # type: ignore[method-assign,assignment]

    def _look(self) -> None:
        now = time.monotonic()
        if self._next <= now < self._end:
            self.count += 1
            node = self._nodes.pop(0)
            self._cluster.remove_node(node, allow_graceful=False)
            self._nodes.append(self._cluster.add_node(num_cpus=self._cpus))
            self._next = now + self._seconds


class Grower:
    """Adds nodes once, and notes when trials end."""

    def __init__(self, cluster: Cluster, cpus: int, num_nodes: int, seconds: float) -> None:
        self._cluster, self._cpus, self._num_nodes = cluster, cpus, num_nodes
        self._seconds = seconds
        self._ended: list[float] = []
        self._added: float | None = None
        seen = Recorder.on_trial_complete

        def on_trial_complete(recorder: Recorder, *arguments: Any, **named: Any) -> None:
            seen(recorder, *arguments, **named)
            self._look()

        # In the main thread, as in ``Killer``.
        Recorder.on_trial_complete = on_trial_complete  # type: ignore[method-assign,assignment]

    def _look(self) -> None:
        now = time.monotonic()
        self._ended.append(now)
        if self._added is None and now - self._ended[0] >= self._seconds:
            self._added = now
            for _ in range(self._num_nodes):
                self._cluster.add_node(num_cpus=self._cpus)

    def growth(self, workers: int) -> dict[str, float]:
        """Trials an hour before and after, and their ratio.

        After: from the first one that ends once as many as there are workers have ended.
        """
        assert self._added is not None
        before = [each for each in self._ended if each <= self._added]
        after = [each for each in self._ended if each > self._added][workers:]
        rates = [3600 * (len(each) - 1) / (each[-1] - each[0]) for each in (before, after)]
        return {
            "trials_per_hour_before": rates[0],
            "trials_per_hour_after": rates[1],
            "growth": rates[1] / rates[0],
        }


def measure(options: argparse.Namespace, storage: str) -> dict[str, Any]:
    """Memory of the head and of the other nodes during a search, and what became of its trials."""
    num_nodes, workers = options.nodes, options.workers
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": True}
    )
    cpus = workers // num_nodes
    num_first = 1 if options.grow_after else num_nodes
    nodes = [cluster.add_node(num_cpus=cpus) for _ in range(num_first)]
    settings = [
        f"storage={storage}",
        f"ray.address={cluster.address}",
        "scaling.num_workers=1",
        f"tune.num_trials={options.trials or 2 * workers}",
        f"tune.max_concurrent_trials={workers}",
        *(_EQUALLY_LONG if options.grow_after else ()),
    ]
    workspace = Workspace(load_config([str(CONFIG)], settings))
    try:
        ensure_ray(workspace.config)
        prepared = preprocess(workspace, ingest(workspace))
        before = sum(private(cluster.head_node).values())
        if options.kill_every:
            killer = Killer(
                cluster, nodes, workers // num_nodes, options.kill_every, options.kill_for
            )
        if options.grow_after:
            grower = Grower(cluster, cpus, num_nodes - 1, options.grow_after)
        started = time.monotonic()
        with Sampler(cluster, nodes) as most, workers_of(workspace) as pools:
            search(workspace, prepared, pools)
        seconds = time.monotonic() - started
        records = open_records(
            workspace.config, prepared, workspace.paths.search(None).folder
        ).ended()
    finally:
        ray.shutdown()
        cluster.shutdown()
    return {
        "workers": workers,
        "nodes": num_nodes,
        "seconds": seconds,
        "trials": dict(Counter(record.state for record in records)),
        "nodes_killed": killer.count if options.kill_every else 0,
        **(grower.growth(workers) if options.grow_after else {}),
        "losses": sum(record.losses for record in records),
        "head_mb_per_trial": (sum(most.head.values()) - before) / workers,
        "node_mb_per_trial": sum(sum(each.values()) for each in most.nodes) / workers,
        "head_mb": most.head,
        "first_node_mb": most.nodes[0],
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=8, help="trials at a time")
    parser.add_argument("--nodes", type=int, default=1, help="nodes that they are on")
    parser.add_argument("--trials", type=int, default=0, help="twice the workers by default")
    parser.add_argument("--kill-every", type=float, default=0.0, help="seconds; 0 kills no node")
    parser.add_argument("--kill-for", type=float, default=180.0, help="seconds")
    parser.add_argument("--grow-after", type=float, default=0.0, help="seconds; 0 adds no node")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as folder:
        results = measure(options, folder)
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:24}{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
