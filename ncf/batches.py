"""Columns of prepared ratings -> a typed ``Batch`` of tensors: the only collate."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch


class Rows(Protocol):
    """The rows of a split: a ``Batch`` has them all in memory, ``ncf.streaming`` reads them."""

    @property
    def device(self) -> torch.device:
        """Where they are, or are put when they are read."""

    def __len__(self) -> int: ...

    def map(self, change: Callable[[Batch], Batch]) -> Rows:
        """The same rows with ``change`` made to them, which looks at each by itself."""

    def parts(self) -> Batches:
        """All rows in order, as many at a time as are in memory."""

    def windows(self, generator: torch.Generator) -> Batches:
        """All rows once, as many at a time as are in memory, in random order.

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

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.users.device

    def map(self, change: Callable[[Batch], Batch]) -> Batch:
        """``change`` made to all rows."""
        return change(self)

    def parts(self) -> Batches:
        """All rows at once."""
        yield self

    def windows(self, generator: torch.Generator) -> Batches:
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


class Portion(NamedTuple):
    """One worker's part of a training batch."""

    rows: Batch
    batch_size: int
    """Rows of the whole batch."""
    starts: torch.Tensor | None = None
    """``[C + 1]`` boundaries of groups of one user's rows each, if rows come in groups."""


Portions = Generator[Portion, None, None]


def shuffled(
    rows: Rows, batch_size: int, generator: torch.Generator, share: Share = ALONE
) -> Portions:
    """One epoch of batches in random order.

    The permutation depends on ``generator`` alone, so workers that seed it alike part the same
    batches among them, and any number of workers takes the same optimiser steps.
    """
    for batch in of_size(batch_size, rows.windows(generator)):
        yield Portion(share.of(batch), len(batch))


def of_size(size: int, windows: Iterator[Batch]) -> Batches:
    """All rows in order, ``size`` at a time but for the last ones, across the windows' borders."""
    rest: Batch | None = None
    for window in windows:
        taken = 0
        if rest:
            taken = size - len(rest)
            rest = concatenated(rest, window[:taken])
            if len(rest) < size:
                del window
                continue
            yield rest
        last = taken + max((len(window) - taken) // size - 1, 0) * size
        yield from chunks(window[taken:last], size)
        # What is left when the next window is asked for is a copy, and nothing refers to this one:
        # else it would stay while the one after the next is read.
        rest = window[last:].map(_copied)
        del window
        if len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest:
        yield rest


def _copied(rows: Batch) -> Batch:
    return rows._each(torch.clone)


def grouped(
    rows: Batch,
    batch_size: int,
    grouping: Grouping,
    generator: torch.Generator,
    share: Share = ALONE,
) -> Portions:
    """One epoch of batches of whole groups, about ``batch_size`` rows each; otherwise as above.

    A worker's share is every n-th group of a batch.
    """
    order, starts = grouping.draw(rows.users.cpu().long(), generator)
    lengths = starts.diff()
    groups = torch.randperm(len(lengths), generator=generator)
    # A group belongs to the batch in which its last row falls.
    batch_of = (torch.cumsum(lengths[groups], 0) - 1) // batch_size
    _, sizes = torch.unique_consecutive(batch_of, return_counts=True)
    for batch in torch.split(groups, sizes.tolist()):
        mine = batch[share.rank :: share.size]
        taken, bounds = _spread(starts[mine], lengths[mine])
        device = rows.users.device
        yield Portion(rows[order[taken].to(device)], int(lengths[batch].sum()), bounds.to(device))


@dataclass(frozen=True)
class Grouping:
    """How each user's rows are divided, anew for every epoch."""

    largest: int
    """Rows of a group at most; the rows of a user are divided evenly among as few as it takes."""
    small_share: float
    """Share of each user's rows that is put into groups of ``SMALL`` rows at most."""

    def draw(
        self, users: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``users: [N]`` -> an order of the rows ``[N]`` and the groups' boundaries in it."""
        order = torch.randperm(len(users), generator=generator)
        order = order[torch.argsort(users[order], stable=True)]
        ordered = users[order]
        _, counts = torch.unique_consecutive(ordered, return_counts=True)
        # Rounded at random: users with few rows have small groups too, in some epochs.
        small = (counts * self.small_share + torch.rand(len(counts), generator=generator)).long()
        small = small.clamp(max=counts)
        small_size = torch.randint(1, SMALL + 1, (len(counts),), generator=generator)
        large = counts - small
        num_large = -(-large // self.largest)
        user = torch.repeat_interleave(torch.arange(len(counts)), counts)
        position = torch.arange(len(users)) - (torch.cumsum(counts, 0) - counts)[user]
        in_small = position < small[user]
        group = torch.where(
            in_small,
            position // small_size[user],
            # Beyond every small group's number.
            len(users) + (position - small[user]) * num_large[user] // large[user].clamp(min=1),
        )
        begins = torch.ones(len(users), dtype=torch.bool)
        begins[1:] = (ordered.diff() != 0) | (group.diff() != 0)
        starts = torch.cat([begins.nonzero().squeeze(1), torch.tensor([len(users)])])
        return order, starts


SMALL: Final = 5
"""Rows of a small group at most."""


def _spread(starts: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All positions in some ranges, one range after the other, and their boundaries."""
    bounds = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
    offsets = torch.repeat_interleave(starts - bounds[:-1], lengths)
    return torch.arange(int(bounds[-1])) + offsets, bounds


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
