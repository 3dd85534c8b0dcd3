"""Batches of an epoch: shuffling, grouping by user, and each worker's shard."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import distributed

from ncf.data.batches import Batch, R, RatingSource, Rows, TrainingBatch, chunks, concatenated

R_co = TypeVar("R_co", bound=Rows, covariant=True)


@dataclass(frozen=True)
class Shard:
    """The part of every batch that one of several workers processes."""

    rank: int = 0
    world_size: int = 1

    def of(self, batch: R) -> R:
        """Every ``world_size``-th row, starting at ``rank``; there may be none."""
        return batch if self.world_size == 1 else batch[slice(self.rank, None, self.world_size)]


SINGLE_WORKER: Final = Shard()
"""The shard of a single worker: all rows."""


@dataclass(frozen=True)
class TrainingRows:
    """Training rows with their targets and loss weights, which are computed as rows are read."""

    source: RatingSource
    """The rows with ratings in stars."""
    convert: Callable[[Batch], TrainingBatch]
    """Computes targets and loss weights; treats each row independently."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def device(self) -> torch.device:
        """Device of the tensors, or of those that will be read."""
        return self.source.device

    def in_memory(self) -> TrainingBatch | None:
        """All rows, or None if they are streamed."""
        rows = self.source.in_memory()
        return None if rows is None else self.convert(rows)

    # ``map`` holds no reference to a window while the next one is read.

    def parts(self) -> Iterator[TrainingBatch]:
        """All rows in order, as many at a time as are held in memory."""
        return map(self.convert, self.source.parts())

    def shuffled_windows(self, generator: torch.Generator) -> Iterator[TrainingBatch]:
        """All rows once in random order, as many at a time as are held in memory."""
        return map(self.convert, self.source.shuffled_windows(generator))


class Shuffled(Protocol[R_co]):
    """Rows that can be read in random order, such as ``TrainingRows``."""

    def shuffled_windows(self, generator: torch.Generator) -> Iterator[R_co]:
        """All rows once, in an order that depends on ``generator`` alone."""


class ShardedBatch(NamedTuple, Generic[R]):
    """One worker's part of a training batch."""

    rows: R
    batch_size: int
    """Rows of the whole batch, over all workers."""
    starts: torch.Tensor | None = None
    """``[C + 1]`` boundaries of groups, each with rows of one user, if rows are grouped."""


ShardedBatches = Generator[ShardedBatch[R], None, None]


def shuffled(
    rows: Shuffled[R], batch_size: int, generator: torch.Generator, shard: Shard = SINGLE_WORKER
) -> ShardedBatches[R]:
    """One epoch of batches in random order.

    The permutation depends only on ``generator``, so workers with equal seeds split the same
    batches, and any number of workers takes the same optimiser steps.
    """
    for batch in of_size(batch_size, rows.shuffled_windows(generator)):
        yield ShardedBatch(shard.of(batch), len(batch))


def of_size(size: int, windows: Iterator[R]) -> Generator[R, None, None]:
    """All rows in order, ``size`` at a time except for the last ones, across the boundaries of
    windows."""
    rest: R | None = None
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
        # Copy the rest, so that nothing refers to this window while the next ones are read:
        # otherwise three windows would be in memory.
        rest = window[last:].copied()
        del window
        if len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest:
        yield rest


def grouped(
    rows: R,
    batch_size: int,
    grouping: Grouping,
    generator: torch.Generator,
    shard: Shard = SINGLE_WORKER,
) -> ShardedBatches[R]:
    """One epoch of batches of whole groups, about ``batch_size`` rows each, in random order.

    A worker's shard is every ``world_size``-th group of a batch, starting at ``rank``.
    """
    order, starts = grouping.draw(rows.users.cpu().long(), generator)
    lengths = starts.diff()
    groups = torch.randperm(len(lengths), generator=generator)
    # A group belongs to the batch in which its last row falls.
    batch_of = (torch.cumsum(lengths[groups], 0) - 1) // batch_size
    _, sizes = torch.unique_consecutive(batch_of, return_counts=True)
    for batch in torch.split(groups, sizes.tolist()):
        of_worker = batch[shard.rank :: shard.world_size]
        taken, bounds = _expand_ranges(starts[of_worker], lengths[of_worker])
        device = rows.users.device
        yield ShardedBatch(
            rows[order[taken].to(device)], int(lengths[batch].sum()), bounds.to(device)
        )


@dataclass(frozen=True)
class Grouping:
    """Divides each user's rows into groups, differently in every epoch."""

    largest: int
    """Maximum rows of a group; a user's rows are divided evenly among as few groups as possible."""
    cold_start_share: float
    """Share of each user's rows in groups of at most ``COLD_START_ROWS`` rows."""

    def draw(
        self, users: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``users: [N]`` -> an order of the rows ``[N]`` and the groups' boundaries in it."""
        order = torch.randperm(len(users), generator=generator)
        order = order[torch.argsort(users[order], stable=True)]
        ordered = users[order]
        _, counts = torch.unique_consecutive(ordered, return_counts=True)
        # Rounded at random, so that users with few rows also have small groups in some epochs.
        small = (
            counts * self.cold_start_share + torch.rand(len(counts), generator=generator)
        ).long()
        small = small.clamp(max=counts)
        small_size = torch.randint(1, COLD_START_ROWS + 1, (len(counts),), generator=generator)
        large = counts - small
        num_large = -(-large // self.largest)
        user = torch.repeat_interleave(torch.arange(len(counts)), counts)
        position = torch.arange(len(users)) - (torch.cumsum(counts, 0) - counts)[user]
        in_small = position < small[user]
        group = torch.where(
            in_small,
            position // small_size[user],
            # Larger than the number of any small group.
            len(users) + (position - small[user]) * num_large[user] // large[user].clamp(min=1),
        )
        begins = torch.ones(len(users), dtype=torch.bool)
        begins[1:] = (ordered.diff() != 0) | (group.diff() != 0)
        starts = torch.cat([begins.nonzero().squeeze(1), torch.tensor([len(users)])])
        return order, starts


COLD_START_ROWS: Final = 5
"""Maximum rows of a small group."""


def _expand_ranges(
    starts: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All positions in the given ranges, one range after the other, and the ranges' boundaries."""
    bounds = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
    offsets = torch.repeat_interleave(starts - bounds[:-1], lengths)
    return torch.arange(int(bounds[-1])) + offsets, bounds


def sum_over_workers(totals: torch.Tensor, shard: Shard) -> None:
    """Add up ``totals`` over all workers, in place."""
    if shard.world_size > 1:
        distributed.all_reduce(totals)
