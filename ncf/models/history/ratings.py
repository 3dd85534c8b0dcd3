"""Rating histories as tensors: users' training ratings, and groups of them side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import torch

from ncf.data.batches import Batch

_PAIRS_AT_ONCE: Final = 1 << 23
"""Pairs of ratings whose similarity is in memory at once."""


_QUERIES_AT_ONCE: Final = 1024
"""Rows of one user that are predicted together."""


SECONDS_PER_DAY: Final = 86_400.0


INITIAL_TIME_SCALES: Final = (
    10 / SECONDS_PER_DAY,
    120 / SECONDS_PER_DAY,
    1 / 24,
    1.0,
    30.0,
    600.0,
)
"""Time scales at the start of training. The shortest are those of a page of movies that somebody
rates from top to bottom."""


@dataclass(frozen=True)
class Ratings:
    """Rows with the time as days, in any arrangement."""

    movies: torch.Tensor
    """``[...]`` position in the movie table."""
    days: torch.Tensor
    """``[...]`` float64, days since 1970 UTC: a float32 would not tell two minutes apart."""

    @classmethod
    def of(cls, movies: torch.Tensor, times: torch.Tensor) -> Ratings:
        """From ``movies: [B]`` and ``times: [B]`` in seconds."""
        return cls(movies.long(), times.double() / SECONDS_PER_DAY)

    def __getitem__(self, rows: torch.Tensor) -> Ratings:
        return Ratings(self.movies[rows], self.days[rows])

    def at_once(self) -> Ratings:
        """The same with ``days: [..., 1]`` if each group's are all the same.

        They are where a whole catalogue is scored. Time scales then cost nothing for each pair.
        """
        first = self.days[..., :1]
        return Ratings(self.movies, first) if bool((self.days == first).all()) else self


@dataclass(frozen=True)
class Block:
    """Some groups of rows, side by side: ``rows: [C, L]`` are positions, ``mask: [C, L]`` is true
    where there is a row and not padding."""

    groups: torch.Tensor
    rows: torch.Tensor
    mask: torch.Tensor

    def in_time(self, days: torch.Tensor) -> Block:
        """Each group's rows from the oldest to the newest; ``days: [B]`` are those of all rows."""
        order = days[self.rows].where(self.mask, math.inf).argsort(dim=1, stable=True)
        return replace(self, rows=self.rows.gather(1, order))


def blocks(starts: torch.Tensor, pairs_at_once: int = _PAIRS_AT_ONCE) -> Iterator[Block]:
    """Groups of similar length side by side; group g has the rows ``starts[g]:starts[g + 1]``.

    At least half of each block is rows, and its groups have ``pairs_at_once`` pairs of rows at most
    (unless a single group has more). Empty groups are left out.
    """
    lengths = starts.diff()
    order = torch.argsort(lengths, stable=True)
    order = order[lengths[order] > 0]
    first = 0
    while first < len(order):
        shortest = int(lengths[order[first]])
        longest = 2 * shortest
        at_most = max(1, pairs_at_once // (longest * longest))
        last = int(torch.searchsorted(lengths[order], longest, right=True))
        groups = order[first : min(last, first + at_most)]
        first += len(groups)
        width = torch.arange(int(lengths[groups].max()), device=starts.device)
        mask = width < lengths[groups, None]
        rows = torch.where(mask, starts[groups, None] + width, starts[groups, None])
        yield Block(groups, rows, mask)


@dataclass(frozen=True)
class History:
    """Every user's training ratings, the newest ones of users who have very many."""

    starts: torch.Tensor
    """``[U + 2]``: user index u has the rows ``starts[u]:starts[u + 1]``."""
    movies: torch.Tensor
    """``[N]`` int32, position in the movie table."""
    ratings: torch.Tensor
    """``[N]`` float32, in the training target's unit."""
    times: torch.Tensor
    """``[N]`` int64, seconds since 1970 UTC."""

    @classmethod
    def of(cls, rows: Batch, num_users: int, max_ratings: int) -> History:
        """Of training rows, ``max_ratings`` of a user at most."""
        by_time = torch.argsort(rows.times, stable=True)
        order = by_time[torch.argsort(rows.users[by_time], stable=True)]
        users = rows.users[order].long()
        counts = torch.bincount(users, minlength=num_users + 1)
        ends = torch.cumsum(counts, 0)
        from_end = ends[users] - torch.arange(len(users), device=users.device)
        kept = order[from_end <= max_ratings]
        counts = counts.clamp(max=max_ratings)
        starts = torch.cat([counts.new_zeros(1), torch.cumsum(counts, 0)])
        return cls(starts, rows.movies[kept], rows.ratings[kept], rows.times[kept])

    def rows(self) -> Batch:
        """The kept ratings with their users, as rows of weight 1."""
        users = torch.arange(len(self.starts) - 1, device=self.starts.device)
        return Batch(
            users.repeat_interleave(self.starts.diff()).int(),
            self.movies,
            self.ratings,
            torch.ones_like(self.ratings),
            self.times,
        )

    def to_arrow(self) -> pa.Table:
        """The ratings as a table, for ``from_arrow``."""
        rows = self.rows()
        columns = {
            "user_index": rows.users,
            "movie_index": rows.movies,
            "rating": rows.ratings,
            "timestamp": rows.times,
        }
        return pa.table({name: column.cpu().numpy() for name, column in columns.items()})

    @classmethod
    def from_arrow(cls, table: pa.Table, num_users: int) -> History:
        """The ratings that ``to_arrow`` made a table of."""
        weights = np.ones(len(table), np.float32)
        rows = Batch.from_arrow(table.append_column("weight", pa.array(weights)))
        return cls.of(rows, num_users, max_ratings=len(table))


def as_one_group(rows: Ratings) -> Ratings:
    """The rows as the only group of a block."""
    return Ratings(rows.movies[None], rows.days[None])


def by_user(users: torch.Tensor, order: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Each user of the sorted ``users: [B]`` with some of the positions in ``order: [B]``."""
    distinct, counts = torch.unique_consecutive(users, return_counts=True)
    parts = torch.split(order, counts.tolist())
    for user, part in zip(distinct.tolist(), parts, strict=True):
        for queries in torch.split(part, _QUERIES_AT_ONCE):
            yield user, queries
