"""Persistent worker groups: they train one model after another without starting new processes.

A worker group is one long-lived ``TorchTrainer``. When one of its workers fails, Ray Train restarts
the group, and the trial queue marks the job that it was training as failed, and no other.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, UserCallback
from ray.train.torch import TorchTrainer
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException

from foundation.storage import Storage
from ncf.data.dataset import PreparedDataset
from ray_jobs.cluster.resources import Resources
from ray_jobs.cluster.session import beside_the_driver
from ray_jobs.training.local_mode import LocalRun
from ray_jobs.training.pool_worker import PoolWorkerConfig, run_worker
from ray_jobs.training.torch_trainers import scaling_of
from ray_jobs.training.trial_queue import TrialQueue, reason_of

_SECONDS_TO_END: Final = 10.0
"""How long workers may take to exit; those in a longer epoch are killed."""

_SECONDS_TO_DIE: Final = 30.0
"""How long Ray may take to end a controller whose owner was killed."""

_SECONDS_BETWEEN_LOOKS: Final = 0.05


@contextlib.contextmanager
def persistent_workers(
    prepared: PreparedDataset,
    groups: Sequence[Resources],
    max_failures: int,
    where: Storage,
    models: Storage | None = None,
    metric: str = "rmse",
) -> Iterator[ActorHandle[TrialQueue]]:
    """The trial queue of worker groups that persist during the block.

    Args:
        prepared: the data that all jobs train on.
        groups: resources of each group; no more groups than fit the cluster.
        max_failures: how often a group is restarted.
        where: folder for what Ray Train writes.
        models: folder for the weights of each job, in a folder with the job's name.
        metric: name of the metric that chooses the best epoch of each job.
    """
    trial_queue = ray.remote(TrialQueue).options(**beside_the_driver()).remote(len(groups))
    before = _placement_groups()
    controllers = _controllers()
    try:
        trainers = [
            _trainer(
                PoolWorkerConfig(
                    trial_queue,
                    group_index,
                    prepared,
                    len(groups),
                    metric,
                    models,
                    LocalRun.of(resources, where, ()),
                ),
                resources,
                max_failures,
                where / f"group-{group_index}",
            )
            for group_index, resources in enumerate(groups)
        ]
        running = trial_queue.run.remote(trainers)
        yield trial_queue
        with contextlib.suppress(RayActorError):  # if it has died, its trainers have ended too
            ray.get(trial_queue.close.remote())
        ray.wait([running], timeout=_SECONDS_TO_END)
    finally:
        ray.kill(trial_queue)
        # A controller that is starting workers asks for their CPUs until it has died.
        _wait_until_dead(controllers)
        _free(_placement_groups() - before)


def _controllers() -> set[str]:
    """Ids of the living controllers of this program's training runs."""
    job = ray.get_runtime_context().get_job_id()
    wanted = {"class_name": "TrainController", "job_id": job}
    found = list_actors(
        filters=[("state", "!=", "DEAD"), *((key, "=", value) for key, value in wanted.items())]
    )
    return {actor.actor_id for actor in found}


def _wait_until_dead(before: set[str]) -> None:
    """Wait for the controllers that were started since ``before``, but not for ever."""
    deadline = time.monotonic() + _SECONDS_TO_DIE
    with contextlib.suppress(RayStateApiException):
        while _controllers() - before and time.monotonic() < deadline:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _placement_groups() -> set[str]:
    """Ids of this program's placement groups that hold resources."""
    job = ray.get_runtime_context().get_job_id()
    return {
        key
        for key, group in placement_group_table().items()
        if key.endswith(job) and group["state"] != "REMOVED"
    }


def _free(groups: set[str]) -> None:
    """Release CPUs and GPUs of workers that were killed, and end their remaining processes.

    Ray Train does not do this if some workers had not started when their controller was killed.
    """
    for group in groups:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(group)))


def _trainer(
    config: PoolWorkerConfig, resources: Resources, max_failures: int, where: Storage
) -> TorchTrainer:
    return TorchTrainer(
        run_worker,
        train_loop_config={"config": config},
        scaling_config=scaling_of(resources),
        run_config=RunConfig(
            name=where.name,
            storage_path=where.parent.path,
            storage_filesystem=where.filesystem,
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=[_FailureReporter(config.trial_queue, config.group_index)],
        ),
    )


class _FailureReporter(UserCallback):
    """Reports to the trial queue why workers failed, before Ray Train replaces them."""

    def __init__(self, trial_queue: ActorHandle[TrialQueue], group_index: int) -> None:
        self._trial_queue = trial_queue
        self._group_index = group_index

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train in its controller."""
        reason = reason_of(next(iter(worker_exceptions.values())))
        ray.get(self._trial_queue.lost.remote(self._group_index, reason))
