"""Rows as tensors: ``Batch`` has ratings in stars, ``TrainingBatch`` what a training step needs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
import torch

WINDOW_ROWS: Final = 1 << 21
"""Rows that an epoch takes at a time: 50 MB as tensors, three times as much while they are read."""


class Rows:
    """Columns of one length B; a subclass is a dataclass whose fields are tensors ``[B]``."""

    users: torch.Tensor
    movies: torch.Tensor
    times: torch.Tensor

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, rows: slice | torch.Tensor) -> Self:
        return self.each(lambda column: column[rows])

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.users.device

    def to(self, device: torch.device) -> Self:
        """The same rows on ``device``."""
        return self.each(lambda column: column.to(device))

    def copied(self) -> Self:
        """The same rows in memory of their own."""
        return self.each(torch.clone)

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """Rows with ``change`` applied to every column."""
        return type(self)(*map(change, vars(self).values()))


R = TypeVar("R", bound=Rows)


class RatingSource(Protocol):
    """The rows of a split: in memory as a ``Batch``, or streamed by ``ncf.data.streaming``."""

    @property
    def device(self) -> torch.device:
        """Device of the tensors, or of those that will be read."""

    def __len__(self) -> int: ...

    def in_memory(self) -> Batch | None:
        """All rows, or None if they are streamed."""

    def parts(self) -> Batches:
        """All rows in order, as many at a time as are held in memory."""

    def shuffled_windows(self, generator: torch.Generator) -> Batches:
        """All rows once in random order, as many at a time as are held in memory.

        The order depends on ``generator`` alone.
        """


@dataclass(frozen=True)
class Batch(Rows):
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
        return cls(
            users=column(table, "user_index", np.int32),
            movies=column(table, "movie_index", np.int32),
            ratings=column(table, "rating", np.float32),
            weights=column(table, "weight", np.float32),
            times=column(table, "timestamp", np.int64),
        )

    def to_arrow(self) -> pa.Table:
        """The table of ``from_arrow``."""
        names = ("user_index", "movie_index", "rating", "weight", "timestamp")
        columns = (each.cpu().numpy() for each in vars(self).values())
        return pa.table(dict(zip(names, columns, strict=True)))

    def in_memory(self) -> Batch:
        """All rows."""
        return self

    def parts(self) -> Batches:
        """All rows at once."""
        yield self

    def shuffled_windows(self, generator: torch.Generator) -> Batches:
        """All rows, permuted, ``WINDOW_ROWS`` at a time."""
        order = torch.randperm(len(self), generator=generator).to(self.device)
        # Permuting every column of many rows and slicing is cheaper than an index look-up for each
        # batch; permuting all at once takes as much memory as they do.
        for rows in order.split(WINDOW_ROWS):
            yield self[rows]


Batches = Generator[Batch, None, None]


@dataclass(frozen=True)
class TrainingBatch(Rows):
    """Rows as a training step takes them: what to predict, and how much each row counts.

    ``ncf.models.targets.Objective`` computes the targets and loss weights from ratings.
    """

    users: torch.Tensor
    """``[B]`` int32, user index."""
    movies: torch.Tensor
    """``[B]`` int32, position in the movie table."""
    targets: torch.Tensor
    """``[B]`` float32, what the network is to predict: stars, or stars times the time-decay weight
    (``time_decay.apply_to = "target"``). This is the training target's unit."""
    loss_weights: torch.Tensor
    """``[B]`` float32, factor of the row's loss; the mean over all training rows is 1."""
    times: torch.Tensor
    """``[B]`` int64, time of the rating, in seconds since 1970 UTC."""


def column(table: pa.Table, name: str, dtype: type) -> torch.Tensor:
    """``[B]`` a column of a table."""
    # A copy: Arrow's memory is read-only, torch's must not be.
    return torch.from_numpy(np.array(table[name].to_numpy(), dtype=dtype))


def concatenated(first: R, second: R | None) -> R:
    """The rows of both, in order."""
    if second is None:
        return first
    columns = zip(vars(first).values(), vars(second).values(), strict=True)
    return type(first)(*map(torch.cat, columns))


def chunks(rows: R, size: int) -> Generator[R, None, None]:
    """All rows in order, at most ``size`` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
