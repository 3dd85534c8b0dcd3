"""Why a training task lost its workers, and whether it is trained again.

Workers are lost to faults of the cluster (their node or process is gone), for want of memory, or by
an exception of the training itself. Only the last says something about the task: training it again
elsewhere helps against the others, unless it needs more memory than a node has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.train import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError

from foundation.errors import MovieRatingsError

Cause = Literal["cluster", "memory", "error", "resize"]
"""``resize``: the number of its workers changes, which is no fault."""

_MEMORY_KILLS: Final = 1
"""How often a task may be trained again after Ray has ended its workers for want of memory: beside
other programs it may have been their memory, twice it is likely the task's own."""

_NODE: Final = re.compile(r"\(IP: ([^,)]+)")
_USED: Final = re.compile(r"was ([\d.]+) ?GB used / ([\d.]+) ?GB")
_OWN: Final = re.compile(r"actual memory used=([\d.]+) ?GB")
_OF_A_CONNECTION: Final = re.compile(
    r"\b(gloo|nccl|connection (closed|reset|refused)|broken pipe)\b", re.IGNORECASE
)
"""In the message of a worker whose partner is gone."""
_DEAD_NODE: Final = re.compile(r"\bNode IP: ([^,\s]+)")
_ACTOR_NODE: Final = re.compile(r"^\s*ip: (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Loss:
    """What happened to the workers of a task."""

    cause: Cause
    reason: str
    """In a sentence, without a full stop."""

    @classmethod
    def of_workers(cls, exceptions: Iterable[Exception]) -> Loss:
        """From the exceptions of a group's workers, of which there is at least one.

        If one of several workers dies, the others fail because it does not answer; so a fault of
        the cluster explains all exceptions beside it.
        """
        found = [_loss(_inner(error)) for error in exceptions]
        by_cause = {loss.cause: loss for loss in reversed(found)}
        return by_cause.get("memory") or by_cause.get("cluster") or by_cause["error"]

    @classmethod
    def of_training(cls, error: TrainingFailedError) -> Loss:
        """From what ``TorchTrainer.fit`` raised."""
        if isinstance(error, WorkerGroupError) and error.worker_failures:
            return cls.of_workers(error.worker_failures.values())
        if isinstance(error, PreemptionError):
            return cls("cluster", "its node was taken away")
        if isinstance(error, ControllerError):
            return _loss(error.controller_failure)
        return cls("error", reason_of(error))


@dataclass(frozen=True)
class Retries:
    """How often a task that has lost its workers is trained again."""

    preemptions: int = 0
    """After faults of the cluster: ``tune.max_preemptions``."""
    errors: int = 0
    """After exceptions of its own: ``scaling.max_failures``."""


@dataclass
class Losses:
    """The losses of one task so far."""

    retries: Retries
    counts: Counter[Cause] = field(default_factory=Counter)

    def add(self, loss: Loss) -> str | None:
        """Why the task has failed, or None if it is to be trained again."""
        self.counts[loss.cause] += 1
        count = self.counts[loss.cause]
        if loss.cause == "resize":
            return None
        allowed = {
            "cluster": self.retries.preemptions,
            "memory": _MEMORY_KILLS,
            "error": self.retries.errors,
        }
        if count <= allowed[loss.cause]:
            return None
        if loss.cause == "error":
            return loss.reason
        if loss.cause == "memory":
            return (
                f"{loss.reason}. Lower tune.max_concurrent_trials or train.batch_size, or set "
                'train.rows = "streaming"'
            )
        times = "once" if count == 1 else f"{count} times, the last time"
        return (
            f"it lost its workers {times} because {loss.reason} (tune.max_preemptions = "
            f"{self.retries.preemptions})"
        )


def reason_of(error: Exception) -> str:
    """The message of an exception, in one line with the type if others raise it."""
    if isinstance(error, MovieRatingsError):
        return str(error)
    return f"{type(error).__name__}: {_last_line(error)}"


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[-1].strip()


def _inner(error: BaseException) -> BaseException:
    """The exception that others were raised from: Ray Train's own, and that of a task."""
    wrapped = getattr(error, "health_check_failure", None)
    if wrapped is None and isinstance(error, RayTaskError):
        wrapped = error.cause
    return error if wrapped is None or wrapped is error else _inner(wrapped)


def _loss(error: BaseException) -> Loss:
    if isinstance(error, OutOfMemoryError):
        return Loss("memory", _memory_reason(str(error)))
    if isinstance(error, RayActorError) and not error.actor_init_failed:
        return Loss("cluster", _actor_reason(error))
    if isinstance(error, NodeDiedError):
        node = _DEAD_NODE.search(str(error))
        return Loss("cluster", f"node {node[1]} was lost" if node else "its node was lost")
    if isinstance(error, WorkerCrashedError) or _is_of_ray_train(error):
        return Loss("cluster", _last_line(error))
    reason = reason_of(error) if isinstance(error, Exception) else repr(error)
    is_of_a_connection = isinstance(error, RuntimeError) and _OF_A_CONNECTION.search(str(error))
    return Loss("cluster" if is_of_a_connection else "error", reason)


def _is_of_ray_train(error: BaseException) -> bool:
    """Whether workers could not be started, or did not answer in time."""
    return type(error).__name__ in (
        "WorkerGroupStartupFailedError",
        "WorkerGroupStartupTimeoutError",
        "WorkerHealthCheckTimeoutError",
    )


def _memory_reason(message: str) -> str:
    """Of Ray's memory monitor, whose message goes on for a page."""
    node, used, own = (each.search(message) for each in (_NODE, _USED, _OWN))
    where = f"node {node[1]}" if node else "its node"
    held = f", which held {own[1]} GB," if own else ""
    amounts = f": {used[1]} of {used[2]} GB were in use" if used else ""
    return f"Ray ended its worker{held} because {where} ran out of memory{amounts}"


def _actor_reason(error: RayActorError) -> str:
    node = _ACTOR_NODE.search(str(error))
    where = f" {node[1]}" if node else ""
    if error.preempted:
        return f"node{where} was taken away"
    if "node has died" in str(error):
        return f"node{where} was lost"
    if isinstance(error, ActorUnavailableError):
        return "a worker did not answer"
    on = f" on node{where}" if node else ""
    return f"the process of a worker{on} ended unexpectedly"
