"""A search on a cluster whose only worker node is lost twice, each time in the middle of a trial:
once without a warning, once after the cluster was told that it will be taken away.

    python -m tests.ray_jobs.lost_nodes STORAGE [SETTING ...]

A program of its own, because it starts a cluster. Writes the records of the trials into
``STORAGE/trials.json``, and those of the same search without a loss, in this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster

from foundation.config import apply_overrides, keys
from foundation.console import log_to_console
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import JobConfig, ScalingConfig
from ray_jobs.results.run import Workspace
from ray_jobs.search.resume import Recorder
from ray_jobs.stages.graph import workers_of
from ray_jobs.stages.preparation import ingest, preprocess
from ray_jobs.stages.tuning import open_records, search
from tests.ray_jobs.nodes import RAY, free_ports
from tests.ray_jobs.small import job
from tests.support import ends

LOST_AT = {2: 3, 3: 2}
"""Numbers of trials, and of the epoch after which their node is lost."""
TOLD_BEFORE = 3
"""Number of the trial whose node is lost with a warning."""


class Nodes:
    """A head without CPUs and a node with one, which is replaced by another when it is lost."""

    def __init__(self) -> None:
        # Its default port may be that of another cluster of this machine.
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": free_ports(1)[0]}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self._node = self.cluster.add_node(num_cpus=1)
        self._left = dict(LOST_AT)

    def after(self, trial: int, epoch: int) -> None:
        """Lose the node if it is time."""
        if self._left.get(trial) != epoch:
            return
        del self._left[trial]
        lost = self._node
        if trial == TOLD_BEFORE:
            self._node = self.cluster.add_node(num_cpus=1)
            self._drain(lost.node_id)  # it goes on until the end of this program
        else:
            self.cluster.remove_node(lost, allow_graceful=False)
            self._node = self.cluster.add_node(num_cpus=1)

    def _drain(self, node: str) -> None:
        """Say that the node will be taken away, and wait until its workers have left."""
        workers = [
            actor["Pid"]
            for actor in actors(actor_state_name="ALIVE").values()
            if actor["ActorClassName"] == "RayTrainWorker" and actor["Address"]["NodeID"] == node
        ]
        of_preemption = ("DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot instance")
        command = (RAY, "drain-node", "--address", self.cluster.address, "--node-id", node)
        limit = ("--deadline-remaining-seconds", "600")
        subprocess.run((*command, "--reason", *of_preemption, *limit), check=True)
        assert workers
        assert all(ends(worker, 60) for worker in workers)

    def close(self) -> None:
        """Stop all nodes, after having lost one each time."""
        ray.shutdown()
        self.cluster.shutdown()
        assert not self._left


def watch(nodes: Nodes) -> None:
    """Tell ``nodes`` of every epoch that the search has seen."""
    seen = Recorder.on_trial_result

    def on_trial_result(
        self: Recorder, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        seen(self, iteration, trials, trial, result, **info)
        nodes.after(self._records.of(trial.trial_id).number, result["epoch"])

    Recorder.on_trial_result = on_trial_result  # type: ignore[method-assign]


def main() -> None:
    """Search, and write what became of the trials."""
    storage, *settings = sys.argv[1:]
    log_to_console()
    nodes = Nodes()
    values: dict[str, Any] = {
        "ray": {"address": nodes.cluster.address},
        "scaling": {"num_workers": 1},
        "train": {"epochs": 6, "batch_size": 256, "patience": 0},
        "tune": {"num_trials": 4, "grace_epochs": 6},
    }
    given = job(Path(storage), **values).model_dump(mode="json", exclude_none=True)
    config = JobConfig.model_validate(apply_overrides(given, settings, keys(JobConfig)))
    in_this_process = config.model_copy(
        update={"name": "undisturbed", "scaling": ScalingConfig(num_workers=0)}
    )
    try:
        ensure_ray(config)
        found = {"undisturbed": searched(in_this_process)}
        watch(nodes)
        found["disturbed"] = searched(config)
        (Path(storage) / "trials.json").write_text(json.dumps(found))
    finally:
        nodes.close()


def searched(config: JobConfig) -> list[dict[str, Any]]:
    """Search, and return the records of the trials."""
    workspace = Workspace(config)
    prepared = preprocess(workspace, ingest(workspace))
    with workers_of(workspace) as workers:
        search(workspace, prepared, workers)
    records = open_records(config, prepared, workspace.paths.search(None).folder)
    return [asdict(record) for record in records.ended()]


if __name__ == "__main__":
    main()
