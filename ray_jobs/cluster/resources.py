"""What training runs take from the cluster, whose nodes may come and go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import ray

from ray_jobs.cluster.autoscaler import may_ever_hold, may_grow
from ray_jobs.cluster.ray_internals import available_by_node, draining_nodes
from ray_jobs.config import JobConfig
from ray_jobs.errors import ResourceError

GIB: Final = 1 << 30

_MEMORY: Final = GIB / 2
"""Bytes reserved for a worker: somewhat more than its 460 MB without rows."""


@dataclass(frozen=True)
class Resources:
    """What one worker group takes."""

    num_workers: int
    """The smallest number, if it may change."""
    per_worker: dict[str, float]
    use_gpu: bool
    max_workers: int | None = None
    """The largest number, if it may change while the group trains."""

    @property
    def description(self) -> str:
        """For messages, after a number of training runs."""
        if not self.num_workers:
            return "in the job's own processes"
        count = str(self.num_workers)
        if self.max_workers:
            count += f" to {self.max_workers}"
        return f"with {count} {self.device} worker(s) each"

    @property
    def device(self) -> str:
        """``GPU`` or ``CPU``."""
        return "GPU" if self.use_gpu else "CPU"

    @property
    def is_pooled(self) -> bool:
        """Whether groups of a node share a trainer."""
        return self.num_workers == 1 and self.max_workers is None

    @property
    def of_a_worker(self) -> str:
        """For messages, after a number of workers."""
        return " and ".join(
            f"{amount / GIB:g} GiB of memory" if kind == "memory" else f"{amount:g} {kind}"
            for kind, amount in self.per_worker.items()
        )

    @property
    def bundles(self) -> list[dict[str, float]]:
        """For a placement group."""
        return [self.per_worker] * self.num_workers

    @classmethod
    def of(cls, config: JobConfig, *, alone: bool = False, quicker: str | None = None) -> Resources:
        """Derive them from the configuration and the running cluster.

        Args:
            config: of the job.
            alone: whether no other model is trained at the same time.
            quicker: the device that ``scaling.use_gpu = "auto"`` takes if both are there.
        """
        scaling = config.scaling
        cpus, num_workers = float(scaling.cpus_per_worker), scaling.min_workers
        if not num_workers:
            return cls(0, {"CPU": cpus}, use_gpu=False)
        gpus = ray.cluster_resources().get("GPU", 0.0)
        use_gpu = gpus >= num_workers and quicker != "CPU"
        if scaling.use_gpu != "auto":
            use_gpu = scaling.use_gpu
        memory = _memory_of_a_worker(config)
        per_worker = {"CPU": cpus} | ({"GPU": 1.0} if use_gpu else {})
        per_worker |= {"memory": memory} if memory else {}
        may_change = alone and scaling.max_workers > num_workers
        return cls(num_workers, per_worker, use_gpu, scaling.max_workers if may_change else None)


@dataclass(frozen=True)
class Pool:
    """The worker groups that one ``TorchTrainer`` runs.

    Groups of one worker each are pooled by node: the processes that Ray Train needs besides workers
    are shared by all of them, and the loss of a node affects no other pool. A group of several
    workers, which may be on several nodes, or of none, has a trainer of its own.
    """

    resources: Resources
    """Of one group."""
    num_groups: int = 1
    node: str | None = None
    """Id of the node of all its workers; None if they may be anywhere."""

    @property
    def is_one_group(self) -> bool:
        """Whether its workers train one model together."""
        return self.node is None

    @property
    def total(self) -> dict[str, float]:
        """What its groups take together."""
        count = self.num_groups * self.resources.num_workers
        return {kind: amount * count for kind, amount in self.resources.per_worker.items()}


@dataclass(frozen=True)
class Node:
    """A node that workers may be started on."""

    key: str
    """Its id."""
    resources: Mapping[str, float]
    """All that it has."""
    free: Mapping[str, float]
    """What is free, as Ray knew a moment ago."""

    def room(self, running: Sequence[Pool], starting: Sequence[Pool]) -> list[Mapping[str, float]]:
        """What is left beside these pools: of all that it has, and of what is free.

        Other programs take some of a node, and what is free is known a moment later: the smaller of
        the two holds.
        """
        unused, free = self.resources, self.free
        for pool in (*running, *starting):
            if pool.node == self.key:
                unused = _left(unused, pool.total)
        for pool in starting:
            if pool.node == self.key:
                free = _left(free, pool.total)
        return [unused, free]


@dataclass(frozen=True)
class GroupPlan:
    """Which worker groups a job wants, as many as fit the nodes that there are."""

    preferred: Resources
    on_the_rest: Resources | None = None
    """What is started on the CPUs that the preferred ones leave."""
    may_grow: bool = False
    """Whether nodes may be added that hold further ones."""
    is_timed: bool = False
    """Whether the slower one of both kinds is left out when it would hold up the end."""
    is_of_ratings: bool = True
    """Whether rating models are trained, which say nothing about how quick others are."""

    @classmethod
    def of(
        cls,
        config: JobConfig,
        *,
        for_trials: bool = False,
        alone: bool = False,
        quicker: str | None = None,
        has_calls: bool = False,
    ) -> GroupPlan:
        """Derive it from the configuration and the running cluster.

        Args:
            config: of the job.
            alone: whether a single model is trained at a time.
            quicker: see ``Resources.of``.
            has_calls: whether there are tasks that need no GPU.
            for_trials: also plan for what ``tune.also_on_cpus`` adds.

        Raises:
            ResourceError: if not even one group fits, and no node may be added for one.
        """
        preferred, rest = Resources.of(config, alone=alone, quicker=quicker), None
        if not preferred.num_workers:
            return cls(preferred)
        wants_cpus_too = has_calls or (for_trials and config.tune.wants_cpus_too)
        if wants_cpus_too and preferred.use_gpu:
            rest = replace(
                preferred,
                per_worker={k: v for k, v in preferred.per_worker.items() if k != "GPU"},
                use_gpu=False,
            )
        is_timed = rest is not None and for_trials and config.tune.also_on_cpus == "auto"
        plan = cls(preferred, rest, may_grow(config.ray.autoscaling), is_timed)
        if preferred not in plan.fitting() and not may_ever_hold(
            preferred.bundles, config.ray.autoscaling
        ):
            raise ResourceError(plan.why_none_fits())
        return plan

    @property
    def kinds(self) -> tuple[Resources, ...]:
        """The resources of its groups."""
        return (self.preferred,) if self.on_the_rest is None else (self.preferred, self.on_the_rest)

    def without(self, device: str) -> GroupPlan:
        """This plan with the kind on the other device alone."""
        (other,) = (each for each in self.kinds if each.device != device)
        return replace(self, preferred=other, on_the_rest=None, is_timed=False)

    @property
    def waited_for(self) -> str:
        """For messages, after "waiting for"."""
        asked = "; the autoscaler has been asked for nodes" if self.may_grow else ""
        return f"workers of {self.preferred.of_a_worker}{asked}"

    def fitting(self) -> list[Resources]:
        """The groups that fit the nodes that are there now, the preferred ones first."""
        return self._fitting([node["Resources"] for node in alive_nodes()])

    def _fitting(self, nodes: Sequence[Mapping[str, float]]) -> list[Resources]:
        first, rest = self.preferred, self.on_the_rest
        if not first.num_workers:
            return [first]
        found = [first] * (_num_workers(first, nodes) // first.num_workers)
        if rest:
            workers = _num_workers(rest, nodes) - _num_workers(first, nodes)
            found += [rest] * (workers // rest.num_workers)
        return found

    def missing(
        self,
        nodes: Sequence[Node],
        running: Sequence[Pool],
        starting: Sequence[Pool],
        wanted: int,
        preferred: int | None = None,
    ) -> list[Pool]:
        """The pools to start for ``wanted`` groups in all, as far as they fit the nodes.

        Args:
            nodes: those that workers may be started on.
            running: pools that have their workers.
            starting: the others that there are.
            wanted: number of groups.
            preferred: number of groups of the preferred kind; as many by default.
        """
        preferred = wanted if preferred is None else preferred
        there = [*running, *starting]
        if not self.preferred.is_pooled:
            fitting = self._fitting([node.resources for node in nodes])[:wanted]
            return [Pool(each) for each in _without(fitting, (pool.resources for pool in there))]
        found: list[Pool] = []
        rooms = {node.key: node.room(running, starting) for node in nodes}
        for resources in self.kinds:
            # Preferred groups are started also if others are enough, which leave when idle.
            is_preferred = resources == self.preferred
            counted = (self.preferred,) if is_preferred else self.kinds
            most = preferred if is_preferred and self.on_the_rest else wanted
            left = most - _num_groups((*there, *found), counted)
            for key, room in rooms.items():
                count = min(left, *(_fit_on(each, resources.per_worker) for each in room))
                if count > 0:
                    pool = Pool(resources, count, key)
                    found.append(pool)
                    left -= count
                    rooms[key] = [_left(each, pool.total) for each in room]
        return found

    def num_preferred(self, there: Iterable[Pool]) -> int:
        """How many of the preferred groups there are, or would be if their nodes were free."""
        started = _num_groups(there, (self.preferred,))
        return max(started, self.fitting().count(self.preferred))

    def workers_on_node(self, wanted: int) -> int:
        """At most so many workers of ``wanted`` groups are on one node at a time."""
        fitting = [
            _fit_on(node["Resources"], kind.per_worker)
            for node in alive_nodes()
            for kind in self.kinds
        ]
        count = self.preferred.max_workers or self.preferred.num_workers
        # Of nodes that may come nothing is known.
        return max(1, min(wanted * count, max(fitting, default=0) or wanted * count))

    def why_none_fits(self) -> str:
        """What there is room for, and what can be done."""
        wanted, cluster = self.preferred, ray.cluster_resources()
        nodes = [node["Resources"] for node in alive_nodes()]
        return (
            f"scaling.num_workers = {wanted.num_workers} workers of {wanted.of_a_worker} each do "
            f"not fit the cluster, which has room for {_num_workers(wanted, nodes)} (it "
            f"holds {cluster.get('CPU', 0):g} CPU, {cluster.get('GPU', 0):g} GPU and "
            f"{cluster.get('memory', 0) / GIB:.1f} GiB of memory), and no "
            "autoscaler is known that may add nodes for them. Lower "
            "scaling.num_workers, scaling.cpus_per_worker or scaling.memory_per_worker, or use a "
            "larger cluster; if nodes will be added, set ray.autoscaling = true."
        )


def _memory_of_a_worker(config: JobConfig) -> float:
    """Bytes to reserve."""
    setting = config.scaling.memory_per_worker
    if setting != "auto":
        return setting * GIB
    nodes = [node["Resources"] for node in alive_nodes() if node["Resources"].get("CPU")]
    all_known = bool(nodes) and all("memory" in resources for resources in nodes)
    return _MEMORY if all_known and not may_grow(config.ray.autoscaling) else 0.0


def alive_nodes() -> list[dict[str, Any]]:
    """Of the cluster, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def usable_nodes() -> list[Node]:
    """Those that are there and will not be taken away."""
    free, leaving = available_by_node(), draining_nodes()
    return [
        Node(node["NodeID"], node["Resources"], free.get(node["NodeID"], {}))
        for node in alive_nodes()
        if node["NodeID"] not in leaving
    ]


def _num_groups(pools: Iterable[Pool], kinds: Sequence[Resources]) -> int:
    return sum(pool.num_groups for pool in pools if pool.resources in kinds)


def _left(room: Mapping[str, float], taken: Mapping[str, float]) -> dict[str, float]:
    return {kind: amount - taken.get(kind, 0.0) for kind, amount in room.items()}


def _without(wanted: Iterable[Resources], living: Iterable[Resources]) -> list[Resources]:
    """Those of ``wanted`` of which there are not as many."""
    there = list(living)
    missing = []
    for resources in wanted:
        if resources in there:
            there.remove(resources)
        else:
            missing.append(resources)
    return missing


def _num_workers(resources: Resources, nodes: Iterable[Mapping[str, float]]) -> int:
    """How many workers nodes with these resources hold."""
    return sum(_fit_on(node, resources.per_worker) for node in nodes)


def _fit_on(node: Mapping[str, float], per_worker: Mapping[str, float]) -> int:
    """How many workers fit on one node."""
    return int(min(node.get(kind, 0) // amount for kind, amount in per_worker.items()))
