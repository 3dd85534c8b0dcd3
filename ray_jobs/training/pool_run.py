"""Run the trainer of a pool of worker groups until it ends.

The controller of Ray Train and its helpers live on the node of the program that calls ``fit``. For
a pool on one node that is its own node, so that the driver's does not pay for the pools of a large
cluster.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import ray
from ray import ObjectRef
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.train import ControllerError, TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.training.lost_workers import Loss, reason_of

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer


@dataclass(frozen=True)
class PoolEnd:
    """How a pool ended."""

    loss: Loss
    """What happened to its workers."""
    is_given_up: bool = False
    """Whether it ended for a reason that another pool in its place would meet too."""


_GONE: Final = (
    NodeDiedError,
    OutOfMemoryError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
"""What is raised for a task whose node or process is gone."""


def _fault_of_the_cluster(error: RayError) -> Loss:
    """Whatever it was: of all groups of a pool it says nothing of any task."""
    return Loss("cluster", Loss.of_workers([error]).reason)


class PoolRun(ABC):
    """A pool to run."""

    @abstractmethod
    async def run(self) -> PoolEnd:
        """Run it until it ends."""


@dataclass(frozen=True)
class RunHere(PoolRun):
    """Runs it in a thread."""

    trainer: TorchTrainer

    async def run(self) -> PoolEnd:
        """Wait for the thread."""
        with ThreadPoolExecutor(1) as thread:
            return await asyncio.get_running_loop().run_in_executor(thread, fit, self.trainer)


@dataclass(frozen=True)
class RunOnNode(PoolRun):
    """Runs it in a process of a node."""

    trainer: ObjectRef[TorchTrainer]
    """By reference: the queue passes it on without importing PyTorch."""
    node: str
    """Id of the node."""

    async def run(self) -> PoolEnd:
        """Wait for the process."""
        where = NodeAffinitySchedulingStrategy(self.node, soft=False)
        there = ray.remote(fit).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        try:
            end: PoolEnd = await there.remote(self.trainer)
        except _GONE as error:
            return PoolEnd(_fault_of_the_cluster(error))
        except RayError as error:  # the node cannot run this project
            return PoolEnd(_fault_of_the_cluster(error), is_given_up=True)
        return end


def fit(trainer: TorchTrainer) -> PoolEnd:
    """Call its ``fit``, and tell how it ended."""
    try:
        trainer.fit()
    except TrainingFailedError as error:
        failure = error.controller_failure if isinstance(error, ControllerError) else None
        if isinstance(failure, RayError):  # such as another worker that dies while one is replaced
            return PoolEnd(_fault_of_the_cluster(failure))
        return PoolEnd(Loss.of_training(error), is_given_up=True)
    except RayError as error:  # the controller is gone
        return PoolEnd(_fault_of_the_cluster(error))
    except Exception as error:  # in local mode of the training itself
        return PoolEnd(Loss("error", reason_of(error)), is_given_up=True)
    return PoolEnd(Loss("cluster", "its workers have exited"))
