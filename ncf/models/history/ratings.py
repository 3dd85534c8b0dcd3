"""Rating histories as tensors: users' training ratings, and groups of ratings in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from ncf.data.batches import TrainingBatch, column

_PAIRS_AT_ONCE: Final = 1 << 23
"""Maximum pairs of ratings whose similarity is in memory at once."""

_QUERIES_AT_ONCE: Final = 1024
"""Maximum rows of one user that are predicted together."""

SECONDS_PER_DAY: Final = 86_400.0

INITIAL_TIME_SCALES: Final = (
    10 / SECONDS_PER_DAY,
    120 / SECONDS_PER_DAY,
    1 / 24,
    1.0,
    30.0,
    600.0,
)
"""Time scales in days at the start of training. The shortest are those of a user who rates a page
of movies from top to bottom."""


@dataclass(frozen=True)
class Ratings:
    """Movies and times of ratings, in tensors of any shape."""

    movies: torch.Tensor
    """``[...]`` position in the movie table."""
    days: torch.Tensor
    """``[...]`` float64, days since 1970 UTC: a float32 cannot resolve minutes."""

    @classmethod
    def of(cls, movies: torch.Tensor, times: torch.Tensor) -> Ratings:
        """From ``movies: [B]`` and ``times: [B]`` in seconds."""
        return cls(movies.long(), times.double() / SECONDS_PER_DAY)

    def __getitem__(self, rows: torch.Tensor | slice) -> Ratings:
        return Ratings(self.movies[rows], self.days[rows])

    def at_once(self) -> Ratings:
        """The same with ``days: [..., 1]`` if all ratings of each group have the same time.

        This is the case when a whole catalogue is scored; time scales are then computed once and
        not for each pair.
        """
        first = self.days[..., :1]
        return Ratings(self.movies, first) if bool((self.days == first).all()) else self


@dataclass(frozen=True)
class Block:
    """Some groups of rows, padded to the same length."""

    groups: torch.Tensor
    """``[C]`` numbers of the groups."""
    rows: torch.Tensor
    """``[C, L]`` positions of their rows."""
    mask: torch.Tensor
    """``[C, L]`` true for a row, false for padding."""

    def in_time(self, days: torch.Tensor) -> Block:
        """Each group's rows from the oldest to the newest; ``days: [B]`` are those of all rows."""
        order = days[self.rows].where(self.mask, math.inf).argsort(dim=1, stable=True)
        return replace(self, rows=self.rows.gather(1, order))


def blocks(starts: torch.Tensor, pairs_at_once: int = _PAIRS_AT_ONCE) -> Iterator[Block]:
    """Blocks of groups of similar length; group g has the rows ``starts[g]:starts[g + 1]``.

    At most half of each block is padding, and its groups have at most ``pairs_at_once`` pairs of
    rows, unless a single group has more. Empty groups are omitted.
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


class RatingGroups(NamedTuple):
    """Training rows in groups of one user's rows each; a row is predicted from others of its group.

    A tuple, which data-parallel wrappers move between devices.
    """

    targets: torch.Tensor
    """``[B]`` float32, in the training target's unit."""
    starts: torch.Tensor
    """``[C + 1]`` boundaries: group c has the rows ``starts[c]:starts[c + 1]``."""


@dataclass(frozen=True)
class History:
    """The targets of every user's training rows; of a user with very many, the newest ones."""

    starts: torch.Tensor
    """``[U + 2]``: user index u has the rows ``starts[u]:starts[u + 1]``."""
    movies: torch.Tensor
    """``[N]`` int32, position in the movie table."""
    targets: torch.Tensor
    """``[N]`` float32, ratings in the training target's unit, see ``TrainingBatch``."""
    times: torch.Tensor
    """``[N]`` int64, seconds since 1970 UTC."""

    @classmethod
    def of(cls, rows: TrainingBatch, num_users: int, max_ratings: int) -> History:
        """The newest ``max_ratings`` rows of every user."""
        by_time = torch.argsort(rows.times, stable=True)
        order = by_time[torch.argsort(rows.users[by_time], stable=True)]
        users = rows.users[order].long()
        counts = torch.bincount(users, minlength=num_users + 1)
        ends = torch.cumsum(counts, 0)
        from_end = ends[users] - torch.arange(len(users), device=users.device)
        newest = order[from_end <= max_ratings]
        counts = counts.clamp(max=max_ratings)
        starts = torch.cat([counts.new_zeros(1), torch.cumsum(counts, 0)])
        return cls(starts, rows.movies[newest], rows.targets[newest], rows.times[newest])

    @property
    def users(self) -> torch.Tensor:
        """``[N]`` int32, user index of each row."""
        users = torch.arange(len(self.starts) - 1, device=self.starts.device)
        return users.repeat_interleave(self.starts.diff()).int()

    def ratings(self) -> Ratings:
        """``[N]`` the rows' movies and times."""
        return Ratings.of(self.movies, self.times)

    def rows_of(self, user: int) -> slice:
        """Which rows are those of a user index."""
        return slice(int(self.starts[user]), int(self.starts[user + 1]))

    def of_user(self, user: int) -> History:
        """The rows of one user index alone; other indices have none."""
        rows = self.rows_of(user)
        starts = torch.zeros_like(self.starts)
        starts[user + 1 :] = rows.stop - rows.start
        return History(starts, self.movies[rows], self.targets[rows], self.times[rows])

    def to_arrow(self) -> pa.Table:
        """The rows as a table, for ``from_arrow``; its column ``rating`` has the targets."""
        columns = {
            "user_index": self.users,
            "movie_index": self.movies,
            "rating": self.targets,
            "timestamp": self.times,
        }
        return pa.table({name: column.cpu().numpy() for name, column in columns.items()})

    @classmethod
    def from_arrow(cls, table: pa.Table, num_users: int) -> History:
        """The inverse of ``to_arrow``."""
        rows = TrainingBatch(
            users=column(table, "user_index", np.int32),
            movies=column(table, "movie_index", np.int32),
            targets=column(table, "rating", np.float32),
            loss_weights=torch.ones(len(table)),
            times=column(table, "timestamp", np.int64),
        )
        return cls.of(rows, num_users, max_ratings=len(table))


def as_one_group(rows: Ratings) -> Ratings:
    """``[L]`` rows as a block of one group, ``[1, L]``."""
    return Ratings(rows.movies[None], rows.days[None])


def by_user(users: torch.Tensor, order: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Each user of the sorted ``users: [B]`` with at most ``_QUERIES_AT_ONCE`` of their positions.

    ``order: [B]`` has the positions; a user with more of them is yielded several times.
    """
    distinct, counts = torch.unique_consecutive(users, return_counts=True)
    parts = torch.split(order, counts.tolist())
    for user, part in zip(distinct.tolist(), parts, strict=True):
        for queries in torch.split(part, _QUERIES_AT_ONCE):
            yield user, queries
