"""A search on a cluster whose only worker node is lost twice, each time in the middle of a trial.

    python -m tests.ray_jobs.lost_nodes STORAGE [SETTING ...]

A program of its own, because it starts a cluster. Writes the records of the trials into
``STORAGE/trials.json``, and those of the same search without a loss, in this process.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from foundation.config import apply_overrides, keys
from ray_jobs.config import JobConfig, ScalingConfig
from ray_jobs.results.run import Workspace
from ray_jobs.search.resume import Recorder
from ray_jobs.stages.graph import workers_of
from ray_jobs.stages.preparation import ingest, preprocess
from ray_jobs.stages.tuning import open_records, search
from tests.ray_jobs.small import job

LOST_AT = ((2, 3), (3, 2))
"""Numbers of trials, and of the epoch after which their node is lost."""


class Nodes:
    """A head without CPUs and a node with one, which is replaced by another when it is lost."""

    def __init__(self) -> None:
        # Without a dashboard, whose port another cluster of this machine may hold.
        head = {"num_cpus": 0, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self._node = self.cluster.add_node(num_cpus=1)
        self._left = list(LOST_AT)

    def after(self, trial: int, epoch: int) -> None:
        """Lose the node if it is time."""
        if (trial, epoch) in self._left:
            self._left.remove((trial, epoch))
            self.cluster.remove_node(self._node, allow_graceful=False)
            self._node = self.cluster.add_node(num_cpus=1)

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
        ray.init(address=nodes.cluster.address)
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
