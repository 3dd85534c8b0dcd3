"""The parts of Ray that this project uses although Ray does not call them public and stable.

Each is here, or named here, with the reason, so that a new release of Ray can be checked in one
place:

``GcsClient.get_cluster_status``
    Whether an autoscaler of version 2 is there, and which requests it cannot fulfil. ``ray status``
    prints it; ``ray.autoscaler.v2.sdk`` (developer API) leaves the latter out.
``ray._private.utils.read_ray_address``
    The cluster that ``auto`` stands for, to knock at before ``ray.init`` tries for minutes.
``ray._private.worker.print_to_stdstream``
    Prints what Ray finds wrong with nodes and workers in every driver, with pages of their logs and
    states. There is no option against it.
``ray.data``'s autoscaling coordinator
    Asks for nodes on behalf of several programs. Ray Train's controllers use it, so that a request
    by ``ray.autoscaler.sdk.request_resources``, of which a cluster has only one, would not last.
``ray._private.state.available_resources_per_node``
    What is free on each node; ``ray.available_resources`` tells it of the whole cluster.
``ray._private.state.state.get_draining_nodes``
    Which nodes will be taken away, so that their trials can move before. Ray Train's own watcher,
    with a process for each trainer, tells only its workers.
``ray.train.backend.Backend`` (developer API)
    Its ``has_replica_groups``, in ``ray_jobs.training.torch_trainers``: a worker that is lost is
    replaced alone, as Ray's own ``TorchftConfig`` does it.
``ray._private.state.actors``
    Which controllers of Ray Train are still there. ``ray.util.state`` (alpha) tells it too, but
    through the dashboard, which may not answer when a job ends because it has failed.
``ray.train.UserCallback`` (developer API)
    Exceptions of failed workers, in ``ray_jobs.training.workers``: Ray Train has no other hook
    that runs before it restarts a worker group.
``ray.tune.integration.ray_train.TuneReportCallback`` (developer API)
    Epochs of a ``TorchTrainer`` for Ray Tune, in ``ray_jobs.search.trainables``: the way that Ray's
    documentation shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import state as _state
from ray._private import worker as _worker
from ray._private.utils import read_ray_address
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # made by Cython
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply


def pass_messages_to(tell: Callable[[str], None]) -> None:
    """Have ``tell`` called with what Ray would print in this program about nodes and workers."""

    def passed_on(data: dict[str, Any], ignore_prefix: bool) -> None:
        for message in data["lines"]:
            tell(message)

    _worker.print_to_stdstream = passed_on


def newest_cluster() -> str:
    """Address of the cluster that was started last on this machine; empty if there is none."""
    return read_ray_address() or ""


def living_actors(class_name: str) -> set[str]:
    """Ids of this program's actors of a class that have not died."""
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    return {
        actor["ActorID"]
        for actor in _state.actors(job_id=job).values()
        if actor["ActorClassName"] == class_name and actor["State"] != "DEAD"
    }


def available_by_node() -> dict[str, dict[str, float]]:
    """Free resources of each node that is there, by its id."""
    return _state.available_resources_per_node()


def draining_nodes() -> set[str]:
    """Ids of the nodes that will be taken away."""
    return set(_state.state.get_draining_nodes())


@dataclass(frozen=True)
class AutoscalerState:
    """What an autoscaler has told the cluster."""

    version: int
    """Of the requests that it had seen; it grows with each look at them."""
    infeasible: tuple[tuple[dict[str, float], ...], ...]
    """Bundles of each placement group that no node it may add has room for."""


def autoscaler_state() -> AutoscalerState | None:
    """None without an autoscaler, or with one of version 1, which tells nothing."""
    reply = GetClusterStatusReply()
    reply.ParseFromString(GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status())
    state = reply.autoscaling_state
    if not state.autoscaler_state_version:
        return None
    return AutoscalerState(
        state.last_seen_cluster_resource_state_version,
        tuple(
            tuple(dict(each.resources_bundle) for each in gang.requests)
            for gang in state.infeasible_gang_resource_requests
        ),
    )


def request_nodes(requester: str, bundles: list[dict[str, float]], seconds: float) -> None:
    """Ask the autoscaler for room for ``bundles``, in place of what ``requester`` has asked for
    before; the request ends after so many seconds."""
    request = _coordinator().request_resources.remote
    ray.get(request(requester, bundles, expire_after_s=seconds))


def cancel_request(requester: str) -> None:
    """End its request."""
    ray.get(_coordinator().cancel_request.remote(requester))


def _coordinator() -> Any:
    # Importing Ray Data takes a second, and few jobs need this.
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        get_or_create_autoscaling_coordinator,
    )

    return get_or_create_autoscaling_coordinator()
