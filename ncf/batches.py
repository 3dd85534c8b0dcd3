"""Columns of prepared ratings -> a typed ``Batch`` of tensors: the only collate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import torch


@dataclass(frozen=True)
class Batch:
    """Ratings as tensors of one length B; a whole split held in memory is a batch too."""

    users: torch.Tensor
    """``[B]`` int32, user index, 0 for users without a training rating."""
    movies: torch.Tensor
    """``[B]`` int32, position in the movie table."""
    ratings: torch.Tensor
    """``[B]`` float32, stars."""
    weights: torch.Tensor
    """``[B]`` float32, time-decay weight in (0, 1]."""
    times: torch.Tensor
    """``[B]`` int64, when the rating was given, in seconds since 1970 UTC."""

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Batch:
        """The rows of prepared ratings, in the table's order."""

        def column(name: str, dtype: type) -> torch.Tensor:
            # A copy: Arrow's memory is read-only, torch's must not be.
            return torch.from_numpy(np.array(table[name].to_numpy(), dtype=dtype))

        return cls(
            users=column("user_index", np.int32),
            movies=column("movie_index", np.int32),
            ratings=column("rating", np.float32),
            weights=column("weight", np.float32),
            times=column("timestamp", np.int64),
        )

    def __len__(self) -> int:
        return len(self.ratings)

    def __getitem__(self, rows: slice | torch.Tensor) -> Batch:
        return self._each(lambda column: column[rows])

    def to(self, device: torch.device) -> Batch:
        """The same rows on ``device``."""
        return self._each(lambda column: column.to(device))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return Batch(
            change(self.users),
            change(self.movies),
            change(self.ratings),
            change(self.weights),
            change(self.times),
        )


@dataclass(frozen=True)
class Share:
    """Which part of every batch one of several workers takes."""

    rank: int = 0
    size: int = 1

    def of(self, batch: Batch) -> Batch:
        """Every ``size``-th row, from ``rank`` on; possibly none."""
        return batch if self.size == 1 else batch[slice(self.rank, None, self.size)]


ALONE: Final = Share()
"""The share of a worker that has no others beside it: everything."""


def shuffled(
    rows: Batch, batch_size: int, generator: torch.Generator, share: Share = ALONE
) -> Iterator[tuple[Batch, int]]:
    """One epoch of batches in random order, each with the size of the whole batch.

    The permutation depends on ``generator`` alone, so workers that seed it alike part the same
    batches among them, and any number of workers takes the same optimiser steps.
    """
    # Permuting every column once and slicing is cheaper than an index look-up for each batch.
    order = torch.randperm(len(rows), generator=generator).to(rows.users.device)
    for batch in chunks(rows[order], batch_size):
        yield share.of(batch), len(batch)


def chunks(rows: Batch, size: int) -> Iterator[Batch]:
    """All rows in order, at most ``size`` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
