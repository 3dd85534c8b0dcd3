"""A model that is trained on one worker, then on two, then on one again, as nodes come and go.

    python -m tests.ray_jobs.resized STORAGE

A program of its own, because it starts a cluster. Writes what the training came to into
``STORAGE/results.json``, and the same of one in this process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster

from foundation.console import log_to_console
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import JobConfig, ScalingConfig
from ray_jobs.results.run import Workspace
from ray_jobs.stages.graph import workers_of
from ray_jobs.stages.preparation import ingest, preprocess
from ray_jobs.training import torch_trainers
from ray_jobs.training.progress import EpochLog
from ray_jobs.training.run_tasks import train_tasks
from ray_jobs.training.tasks import TrainingTask
from tests.ray_jobs.nodes import free_ports
from tests.ray_jobs.small import job
from tests.support import ends

GROWS_AFTER, SHRINKS_AFTER, EPOCHS = 2, 5, 8


class Nodes:
    """A head without CPUs, a node with one, and for a while another one."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": free_ports(1)[0]}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.cluster.add_node(num_cpus=1)
        self.seen: dict[int, int] = {}
        """Number of workers after each epoch."""

    def after(self, epoch: int) -> None:
        """Add or remove the second node if it is time, and wait until the workers are replaced.

        They are at most two epochs ahead of those that this program has seen.
        """
        before = workers()
        self.seen[epoch] = len(before)
        if epoch == GROWS_AFTER:
            self._second = self.cluster.add_node(num_cpus=1)
        elif epoch == SHRINKS_AFTER:
            self.cluster.remove_node(self._second, allow_graceful=False)
        else:
            return
        assert before
        assert all(ends(process, 90) for process in before)


def workers() -> list[int]:
    """Processes of the workers that are there."""
    alive = actors(actor_state_name="ALIVE").values()
    return [actor["Pid"] for actor in alive if actor["ActorClassName"] == "RayTrainWorker"]


def watch(nodes: Nodes) -> None:
    """Tell ``nodes`` of every epoch that this program has seen."""
    seen = EpochLog.record

    def record(self: EpochLog, metrics: dict[str, Any]) -> None:
        seen(self, metrics)
        nodes.after(metrics["epoch"])

    EpochLog.record = record  # type: ignore[method-assign]


def trained(config: JobConfig) -> dict[str, Any]:
    """Errors of each epoch, and metrics on the test rows."""
    workspace = Workspace(config)
    prepared = preprocess(workspace, ingest(workspace))
    state = workspace.run / "state"
    task = TrainingTask("model", prepared, config.experiment, score_test=True, state=state)
    with workers_of(workspace) as pools:
        (result,) = train_tasks([task], pools, config)
    errors = [epoch["validation_rmse"] for epoch in result.epochs]
    return {"validation_rmse": errors, "test": result.test}


def main() -> None:
    """Train twice, and write the results."""
    (storage,) = sys.argv[1:]
    log_to_console()
    nodes = Nodes()
    torch_trainers.SECONDS_BETWEEN_RESIZES = 1.0  # type: ignore[misc]
    config = job(
        Path(storage),
        ray={"address": nodes.cluster.address},
        scaling={"num_workers": "1-2"},
        model={"dropout": 0.0},
        train={"epochs": EPOCHS, "batch_size": 101, "patience": 0},
    )
    alone = config.model_copy(update={"name": "alone", "scaling": ScalingConfig(num_workers=0)})
    try:
        ensure_ray(config)
        found = {"alone": trained(alone)}
        watch(nodes)
        found["resized"] = trained(config) | {"workers": nodes.seen}
        (Path(storage) / "results.json").write_text(json.dumps(found))
    finally:
        ray.shutdown()
        nodes.cluster.shutdown()


if __name__ == "__main__":
    main()
