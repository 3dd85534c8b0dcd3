"""Batches of an epoch: shuffling, grouping by user, and each worker's shard."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import distributed

from ncf.data.batches import Batch, Batches, RatingSource, chunks, concatenated


@dataclass(frozen=True)
class Shard:
    """Which part of every batch one of several workers takes."""

    rank: int = 0
    world_size: int = 1

    def of(self, batch: Batch) -> Batch:
        """Every ``world_size``-th row, from ``rank`` on; possibly none."""
        return batch if self.world_size == 1 else batch[slice(self.rank, None, self.world_size)]


SINGLE_WORKER: Final = Shard()
"""The share of a worker that has no others beside it: everything."""


class ShardedBatch(NamedTuple):
    """One worker's part of a training batch."""

    rows: Batch
    batch_size: int
    """Rows of the whole batch."""
    starts: torch.Tensor | None = None
    """``[C + 1]`` boundaries of groups of one user's rows each, if rows come in groups."""


ShardedBatches = Generator[ShardedBatch, None, None]


def shuffled(
    rows: RatingSource, batch_size: int, generator: torch.Generator, shard: Shard = SINGLE_WORKER
) -> ShardedBatches:
    """One epoch of batches in random order.

    The permutation depends on ``generator`` alone, so workers that seed it alike part the same
    batches among them, and any number of workers takes the same optimiser steps.
    """
    for batch in of_size(batch_size, rows.shuffled_windows(generator)):
        yield ShardedBatch(shard.of(batch), len(batch))


def of_size(size: int, windows: Iterator[Batch]) -> Batches:
    """All rows in order, ``world_size`` at a time but for the last ones, across the windows'
    borders."""
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
    shard: Shard = SINGLE_WORKER,
) -> ShardedBatches:
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
        mine = batch[shard.rank :: shard.world_size]
        taken, bounds = _expand_ranges(starts[mine], lengths[mine])
        device = rows.users.device
        yield ShardedBatch(
            rows[order[taken].to(device)], int(lengths[batch].sum()), bounds.to(device)
        )


@dataclass(frozen=True)
class Grouping:
    """How each user's rows are divided, anew for every epoch."""

    largest: int
    """Rows of a group at most; the rows of a user are divided evenly among as few as it takes."""
    cold_start_share: float
    """Share of each user's rows that is put into groups of ``COLD_START_ROWS`` rows at most."""

    def draw(
        self, users: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``users: [N]`` -> an order of the rows ``[N]`` and the groups' boundaries in it."""
        order = torch.randperm(len(users), generator=generator)
        order = order[torch.argsort(users[order], stable=True)]
        ordered = users[order]
        _, counts = torch.unique_consecutive(ordered, return_counts=True)
        # Rounded at random: users with few rows have small groups too, in some epochs.
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
            # Beyond every small group's number.
            len(users) + (position - small[user]) * num_large[user] // large[user].clamp(min=1),
        )
        begins = torch.ones(len(users), dtype=torch.bool)
        begins[1:] = (ordered.diff() != 0) | (group.diff() != 0)
        starts = torch.cat([begins.nonzero().squeeze(1), torch.tensor([len(users)])])
        return order, starts


COLD_START_ROWS: Final = 5
"""Rows of a small group at most."""


def _expand_ranges(
    starts: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All positions in some ranges, one range after the other, and their boundaries."""
    bounds = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
    offsets = torch.repeat_interleave(starts - bounds[:-1], lengths)
    return torch.arange(int(bounds[-1])) + offsets, bounds


def sum_over_workers(totals: torch.Tensor, shard: Shard) -> None:
    """Add up ``totals`` over all workers, in place."""
    if shard.world_size > 1:
        distributed.all_reduce(totals)
