"""What the exceptions of workers say about why they were lost."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.train import ControllerError, PreemptionError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from ncf.errors import DivergedError
from ray_jobs.training.lost_workers import Loss, Losses, Retries

DIED = "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n"
NODE_DIED = f"{DIED}\tip: 10.0.0.7\nThe actor died because its node has died. Node Id: ab12"
PROCESS_DIED = f"{DIED}\tip: 10.0.0.7\nThe actor is dead because its process has died."
DEAD_NODE = (
    "Task failed because the node it was running on is dead or unavailable. Node IP: 10.0.0.7, "
    "node ID: 7df5c129. This can happen if the node was preempted, had a hardware failure, or its "
    "raylet crashed unexpectedly. To see node death information, use `ray list nodes --filter "
    "node_id=7df5c129`, check the Ray dashboard cluster page, search the node ID in the GCS logs, "
    "or use `ray logs raylet.out -ip 10.0.0.7`."
)
"""Of Ray 2.60."""
MEMORY = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
    "10.0.0.7, ID: 633b) was 14.61GB used / 15.00GB limit (0.974)\nOOM kill reason: Memory usage "
    "15687610880B exceeded threshold of 15300000000B (95.0% of 16106127360B limit)\nRay killed 1 "
    "worker(s) based on the killing policy\nConsidered workers: [\nSelected to kill: (Actor(9dc2): "
    "job ID=01000000, required resources={CPU: 1}, pid=29001, actual memory used=9.20GB, worker "
    "ID=573c)\n]\nTop 10 memory users:\n"
)
"""As Ray 2.60 writes it, shortened."""


def actor_error(message: str, **settings: Any) -> WorkerHealthCheckFailedError:
    """As Ray Train's controller gets it."""
    return WorkerHealthCheckFailedError("poll failed", RayActorError("aa", message, **settings))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (actor_error(NODE_DIED), Loss("cluster", "node 10.0.0.7 was lost")),
        (actor_error(NODE_DIED, preempted=True), Loss("cluster", "node 10.0.0.7 was taken away")),
        (
            actor_error(PROCESS_DIED),
            Loss("cluster", "the process of a worker on node 10.0.0.7 ended unexpectedly"),
        ),
        (ActorDiedError(), Loss("cluster", "the process of a worker ended unexpectedly")),
        (ActorUnavailableError("RpcError", None), Loss("cluster", "a worker did not answer")),
        (
            RayTaskError("f", "traceback", NodeDiedError(DEAD_NODE)),
            Loss("cluster", "node 10.0.0.7 was lost"),
        ),
        (NodeDiedError("another text"), Loss("cluster", "its node was lost")),
        (WorkerCrashedError(), Loss("cluster", str(WorkerCrashedError()).splitlines()[-1])),
        (
            WorkerHealthCheckFailedError("poll failed", OutOfMemoryError(MEMORY)),
            Loss(
                "memory",
                "Ray ended its worker, which held 9.20 GB, because node 10.0.0.7 ran out of "
                "memory: 14.61 of 15.00 GB were in use",
            ),
        ),
        (
            OutOfMemoryError("another text"),
            Loss("memory", "Ray ended its worker because its node ran out of memory"),
        ),
        (ValueError("first\nlast line"), Loss("error", "ValueError: last line")),
        (DivergedError("training diverged"), Loss("error", "training diverged")),
        (
            RuntimeError("[/pytorch/gloo/pair.cc:1] Connection closed by peer"),
            Loss("cluster", "RuntimeError: [/pytorch/gloo/pair.cc:1] Connection closed by peer"),
        ),
        (RuntimeError("shapes differ"), Loss("error", "RuntimeError: shapes differ")),
        (
            RayActorError("aa", "the actor died in its __init__", actor_init_failed=True),
            Loss("error", "RayActorError: the actor died in its __init__"),
        ),
    ],
)
def test_one_worker(error: Exception, expected: Loss) -> None:
    assert Loss.of_workers([error]) == expected
    assert Loss.of_training(WorkerGroupError("", {0: error})) == expected


def test_a_fault_of_the_cluster_explains_the_errors_of_the_other_workers() -> None:
    own, died = ValueError("no gradient"), actor_error(NODE_DIED)
    expected = Loss("cluster", "node 10.0.0.7 was lost")
    assert Loss.of_workers([own, died]) == Loss.of_workers([died, own]) == expected
    memory = OutOfMemoryError(MEMORY)
    assert Loss.of_workers([own, died, memory]).cause == "memory"
    assert Loss.of_workers([own, TypeError("another")]) == Loss("error", "ValueError: no gradient")


def test_what_ends_a_trainer() -> None:
    preempted = PreemptionError.__new__(PreemptionError)
    assert Loss.of_training(preempted) == Loss("cluster", "its node was taken away")
    slow = Loss.of_training(ControllerError(WorkerGroupStartupTimeoutError(2)))
    assert slow.cause == "cluster"
    wrong = Loss.of_training(ControllerError(ValueError("no such folder")))
    assert wrong == Loss("error", "ValueError: no such folder")


def test_each_cause_is_counted_by_itself() -> None:
    losses = Losses(Retries(preemptions=1, errors=0))
    gone, memory = Loss("cluster", "node A was lost"), Loss("memory", "node A ran out of memory")
    assert losses.add(gone) is None
    assert losses.add(memory) is None
    assert losses.add(Loss("error", "ValueError: no")) == "ValueError: no"
    assert losses.add(gone) == (
        "it lost its workers 2 times, the last time because node A was lost "
        "(tune.max_preemptions = 1)"
    )
    assert str(losses.add(memory)).startswith("node A ran out of memory. Lower tune.")
    never = Losses(Retries())
    assert never.add(gone) == (
        "it lost its workers once because node A was lost (tune.max_preemptions = 0)"
    )
