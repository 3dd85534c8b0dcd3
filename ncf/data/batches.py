"""``Batch``: columns of prepared ratings as typed tensors."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch


class RatingSource(Protocol):
    """The rows of a split: in memory as a ``Batch``, or streamed by ``ncf.data.streaming``."""

    @property
    def device(self) -> torch.device:
        """Device of the tensors, or of those that will be read."""

    def __len__(self) -> int: ...

    def map(self, change: Callable[[Batch], Batch]) -> RatingSource:
        """The same rows after ``change``, which must treat each row independently."""

    def parts(self) -> Batches:
        """All rows in order, as many at a time as are held in memory."""

    def shuffled_windows(self, generator: torch.Generator) -> Batches:
        """All rows once in random order, as many at a time as are held in memory.

        The order depends on ``generator`` alone.
        """


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
    """``[B]`` int64, time of the rating, in seconds since 1970 UTC."""

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

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.users.device

    def map(self, change: Callable[[Batch], Batch]) -> Batch:
        """``change`` applied to all rows."""
        return change(self)

    def parts(self) -> Batches:
        """All rows at once."""
        yield self

    def shuffled_windows(self, generator: torch.Generator) -> Batches:
        """All rows at once, permuted."""
        # Permuting every column once and slicing is cheaper than an index look-up for each batch.
        yield self[torch.randperm(len(self), generator=generator).to(self.device)]

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


Batches = Generator[Batch, None, None]


def concatenated(first: Batch, second: Batch | None) -> Batch:
    """The rows of both, in order."""
    if second is None:
        return first
    return Batch(
        users=torch.cat([first.users, second.users]),
        movies=torch.cat([first.movies, second.movies]),
        ratings=torch.cat([first.ratings, second.ratings]),
        weights=torch.cat([first.weights, second.weights]),
        times=torch.cat([first.times, second.times]),
    )


def chunks(rows: Batch, size: int) -> Batches:
    """All rows in order, at most ``size`` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
