"""Prepared rows on a worker's device."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property

import torch

from ncf.config import ExperimentConfig
from ncf.data.batches import Batch, RatingSource
from ncf.data.dataset import PreparedDataset
from ncf.data.placement import Placement, free_on_every_worker, plan_placement
from ncf.data.sampling import SINGLE_WORKER, Shard
from ncf.data.streaming import Streamed
from ncf.evaluation.choice_data import ChoiceData
from ray_jobs.training.shared_rows import SharedRows
from ray_jobs.training.tasks import ChoiceProtocol


@dataclass(frozen=True)
class NodeMemory:
    """Who else holds rows in the memory of a worker's node."""

    num_workers: int = 1
    """Maximum number of workers on the node at a time."""
    num_datasets: int = 1
    """Data sets whose rows they hold."""


@dataclass(frozen=True)
class SplitCache:
    """Reads each split of one data set at most once, or streams it."""

    prepared: PreparedDataset
    device: torch.device
    shard: Shard = SINGLE_WORKER
    """This worker's part of every batch."""
    memory: NodeMemory = NodeMemory()

    def fits(self, prepared: PreparedDataset, memory: NodeMemory = NodeMemory()) -> bool:
        """Whether this holds the rows of ``prepared``, planned for this memory."""
        return self.prepared.folder == prepared.folder and self.memory == memory

    def placement(self, experiment: ExperimentConfig) -> Placement:
        """Which splits are streamed; all workers of the group must call this."""
        counts = self.prepared.manifest.counts
        shared_by = self.memory.num_workers / self.memory.num_datasets if self._shares else 1.0
        return plan_placement(experiment, counts, lambda: self._free, shared_by)

    def of(self, split: str, placement: Placement) -> RatingSource | None:
        """A split's rows, or None if it has none."""
        if split in placement.streamed:
            return Streamed(self.prepared, split, self.device)
        if split not in self._resident:
            rows = self._read(split)
            self._resident[split] = None if rows is None else rows.to(self.device)
        return self._resident[split]

    def required(self, split: str, placement: Placement) -> RatingSource:
        """The rows of a split that has some."""
        rows = self.of(split, placement)
        assert rows is not None
        return rows

    def choices(self, protocol: ChoiceProtocol) -> ChoiceData:
        """The rows as choice models see them."""
        if protocol not in self._choices:
            self._choices[protocol] = protocol.data(self.prepared)
        return self._choices[protocol]

    def release(self) -> None:
        """Free the memory of the rows; what was measured before they were read is kept."""
        self._resident.clear()
        self._choices.clear()
        self._shared.release()

    @property
    def _shares(self) -> bool:
        """Whether other workers hold the same rows in the same memory."""
        return self.memory.num_workers > self.memory.num_datasets and self.device.type == "cpu"

    def _read(self, split: str) -> Batch | None:
        if self._shares:
            # Without room for a file each has a copy.
            with contextlib.suppress(OSError):
                return self._shared.of(split)
        return self.prepared.rows(split)

    @cached_property
    def _shared(self) -> SharedRows:
        return SharedRows(self.prepared)

    @cached_property
    def _free(self) -> int:
        """Free bytes, measured once, before any rows are read."""
        return free_on_every_worker(self.device, self.shard, self.memory.num_workers)

    @cached_property
    def _choices(self) -> dict[ChoiceProtocol, ChoiceData]:
        return {}

    @cached_property
    def _resident(self) -> dict[str, Batch | None]:
        return {}
