"""Training in the job's own process, by Ray Train's local mode, for ``scaling.num_workers = 0``.

Ray Train has no controller then, so nothing stores checkpoints or calls callbacks. The classes here
do both.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from ray.train import Checkpoint, UserCallback

from foundation.storage import Storage
from ray_jobs.cluster.resources import Resources
from ray_jobs.results.final_model import copy_folder

_LATEST: Final = "latest.json"


@dataclass(frozen=True)
class LocalRun:
    """One training run in this process."""

    where: Storage
    """Folder of the run."""
    num_threads: int
    """Threads of torch, as many as a worker has."""
    callbacks: tuple[UserCallback, ...]

    @classmethod
    def of(
        cls, resources: Resources, where: Storage, callbacks: Sequence[UserCallback]
    ) -> LocalRun | None:
        """None if there are workers."""
        if resources.num_workers:
            return None
        return cls(where, int(resources.per_worker["CPU"]), tuple(callbacks))

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Let torch use ``num_threads`` during the block."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def latest_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that was stored last, by this process or by one that was killed."""
        record = self.where / _LATEST
        if not record.exists():
            return None
        folder = self.where / record.read_json()["folder"]
        return Checkpoint(folder.path, folder.filesystem)

    def report(self, metrics: dict[str, Any], folder: Path | None) -> Checkpoint | None:
        """Store ``folder`` as the latest checkpoint, if there is one, and call the callbacks."""
        checkpoint = self._store(folder) if folder else None
        for callback in self.callbacks:
            callback.after_report(None, [metrics], checkpoint)
        return checkpoint

    def _store(self, source: Path) -> Checkpoint:
        earlier = self.where.list_folders()
        folder = self.where / f"checkpoint-{uuid.uuid4().hex}"
        copy_folder(source, folder)
        (self.where / _LATEST).write_json({"folder": folder.name})
        for each in earlier:
            each.delete()
        return Checkpoint(folder.path, folder.filesystem)
