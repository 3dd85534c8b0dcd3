"""Training in the job's own process, by Ray Train's local mode, for ``scaling.num_workers = 0``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from ray_jobs.cluster.resources import Resources


@dataclass(frozen=True)
class LocalMode:
    """How this process trains."""

    num_threads: int
    """Threads of torch, as many as a worker has."""

    @classmethod
    def of(cls, resources: Resources) -> LocalMode | None:
        """None if there are workers."""
        return None if resources.num_workers else cls(int(resources.per_worker["CPU"]))

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Let torch use ``num_threads`` during the block."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def run(self, work: Callable[[], None]) -> None:
        """Call ``work`` as the body of the only worker."""

        def body(config: dict[str, Any]) -> None:
            with self.threads():
                work()

        TorchTrainer(body, scaling_config=ScalingConfig(num_workers=0)).fit()
