"""What one training run takes from the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import ray

from ray_jobs.config import JobConfig
from ray_jobs.errors import ResourceError


@dataclass(frozen=True)
class Resources:
    """What one training run takes, checked against what the cluster has."""

    num_workers: int
    per_worker: dict[str, float]
    use_gpu: bool
    concurrent: int = field(compare=False)
    """How many such runs fit beside each other."""

    @property
    def description(self) -> str:
        """For messages, after a number of training runs."""
        if not self.num_workers:
            return "in the job's own processes"
        return f"with {self.num_workers} {'GPU' if self.use_gpu else 'CPU'} worker(s) each"

    @classmethod
    def of(cls, config: JobConfig) -> Resources:
        """Derive them from the configuration and the running cluster.

        Raises:
            ResourceError: if not even one run fits.
        """
        scaling = config.scaling
        if not scaling.num_workers:
            return cls(0, {"CPU": float(scaling.cpus_per_worker)}, use_gpu=False, concurrent=1)
        cluster = ray.cluster_resources()
        gpus = cluster.get("GPU", 0.0)
        use_gpu = gpus >= scaling.num_workers if scaling.use_gpu == "auto" else scaling.use_gpu
        per_worker = {"CPU": float(scaling.cpus_per_worker)} | ({"GPU": 1.0} if use_gpu else {})
        fits = sum(_fit_on(node, per_worker) for node in ray.nodes() if node["Alive"])
        if fits < scaling.num_workers:
            wanted = " and ".join(f"{amount:g} {kind}" for kind, amount in per_worker.items())
            raise ResourceError(
                f"scaling.num_workers = {scaling.num_workers} workers of {wanted} each do not fit "
                f"the cluster, which has room for {fits} (it holds {cluster.get('CPU', 0):g} CPU "
                f"and {gpus:g} GPU). Lower scaling.num_workers or scaling.cpus_per_worker, or use "
                "a larger cluster."
            )
        concurrent = fits // scaling.num_workers
        return cls(scaling.num_workers, per_worker, use_gpu, concurrent)


def groups_at_a_time(config: JobConfig, num_models: int) -> int:
    """Number of worker groups that train this many models."""
    limit = config.tune.max_concurrent_trials or num_models
    return max(1, min(Resources.of(config).concurrent, limit, num_models))


def trial_groups(config: JobConfig) -> list[Resources]:
    """The worker groups that a search trains on at a time, those with GPUs first.

    Raises:
        ResourceError: if not even one fits.
    """
    first = Resources.of(config)
    if not first.num_workers:
        return [first]
    groups = [first] * first.concurrent
    if config.tune.also_on_cpus and first.use_gpu:
        cpus = config.scaling.cpus_per_worker
        workers = sum(
            int(node["Resources"].get("CPU", 0) // cpus) - _fit_on(node, first.per_worker)
            for node in ray.nodes()
            if node["Alive"]
        )
        rest = replace(first, per_worker={"CPU": float(cpus)}, use_gpu=False)
        groups += [rest] * (workers // first.num_workers)
    return groups[: config.tune.max_concurrent_trials or None]


def _fit_on(node: dict[str, Any], per_worker: dict[str, float]) -> int:
    """How many workers fit on one node."""
    return int(min(node["Resources"].get(kind, 0) // n for kind, n in per_worker.items()))
