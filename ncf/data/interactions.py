"""Who rated what, as rows of users: what choice models learn from and score with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from ncf.data.dataset import PreparedDataset
from ncf.data.preprocessor import Integers

Floats = npt.NDArray[np.float32]

NEW_USER: Final = -1
"""Id of a user who is not in the data set."""

_COLUMNS: Final = ["row", "user_id", "movie_index", "rating", "timestamp"]


@dataclass(frozen=True)
class Interactions:
    """Ratings of B users in compressed sparse row format, each user's from the oldest to the
    newest; ratings of the same second are in the order in which they were given."""

    users: Integers
    """``[B]`` user ids, ascending unless they were ``select``-ed; ``NEW_USER`` for those without
    one."""
    starts: Integers
    """``[B + 1]``: user b has the ratings ``starts[b]:starts[b + 1]``."""
    movies: npt.NDArray[np.int32]
    """``[N]`` positions in the movie table."""
    ratings: Floats
    """``[N]`` stars."""
    times: Integers
    """``[N]`` seconds since 1970 UTC."""
    num_movies: int
    """M, the size of the movie table."""

    @classmethod
    def of(
        cls,
        user_ids: npt.ArrayLike,
        movies: npt.ArrayLike,
        ratings: npt.ArrayLike,
        times: npt.ArrayLike,
        num_movies: int,
    ) -> Interactions:
        """From rows ``[N]`` in any order of users."""
        ids, seconds = np.asarray(user_ids, np.int64), np.asarray(times, np.int64)
        order = np.lexsort((seconds, ids))
        users, starts = np.unique(ids[order], return_index=True)
        return cls(
            users=users,
            starts=np.append(starts, len(ids)),
            movies=np.asarray(movies, np.int32)[order],
            ratings=np.asarray(ratings, np.float32)[order],
            times=seconds[order],
            num_movies=num_movies,
        )

    @classmethod
    def read(cls, prepared: PreparedDataset, splits: Iterable[str]) -> Interactions:
        """All ratings of these splits of a prepared data set.

        Raises:
            DataError: if the data are damaged.
        """
        wanted = [split for split in splits if prepared.manifest.counts[split]]
        empty = pa.table({name: pa.array([], pa.int64()) for name in _COLUMNS})
        tables = [prepared.table(split, _COLUMNS) for split in wanted]
        rows = pa.concat_tables(tables) if tables else empty
        if len(tables) > 1:
            rows = rows.sort_by("row")  # ties in time keep the release's order
        users, movies, ratings, times = (rows[name].to_numpy() for name in _COLUMNS[1:])
        return cls.of(users, movies, ratings, times, len(prepared.preprocessor.movies))

    def __len__(self) -> int:
        return len(self.users)

    @property
    def num_ratings(self) -> int:
        """N."""
        return len(self.movies)

    @property
    def counts(self) -> Integers:
        """``[B]`` ratings of each user."""
        return np.diff(self.starts)

    @property
    def rows(self) -> Integers:
        """``[N]`` position of each rating's user in ``users``."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def last_times(self) -> Integers:
        """``[B]`` time of each user's newest rating; 0 for a user without any."""
        last = np.zeros(len(self), np.int64)
        has_ratings = self.counts > 0
        last[has_ratings] = self.times[self.starts[1:][has_ratings] - 1]
        return last

    def of_users(self, start: int, stop: int) -> Interactions:
        """Those of the users at positions ``start:stop``; arrays are shared."""
        stop = min(stop, len(self))
        first, last = int(self.starts[start]), int(self.starts[stop])
        return replace(
            self,
            users=self.users[start:stop],
            starts=self.starts[start : stop + 1] - first,
            movies=self.movies[first:last],
            ratings=self.ratings[first:last],
            times=self.times[first:last],
        )

    def select(self, user_ids: npt.ArrayLike) -> Interactions:
        """Those of ``user_ids: [B]``, in this order; a user who has none is there without any."""
        ids = np.asarray(user_ids, np.int64)
        at = np.minimum(np.searchsorted(self.users, ids), max(0, len(self) - 1))
        counts = np.zeros(len(ids), np.int64)
        if len(self):
            counts = np.where(self.users[at] == ids, self.counts[at], 0)
        starts = np.concatenate([[0], np.cumsum(counts)])
        first = self.starts[at] if len(self) else counts
        rows = np.repeat(first - starts[:-1], counts) + np.arange(starts[-1])
        return replace(
            self,
            users=ids,
            starts=starts,
            movies=self.movies[rows],
            ratings=self.ratings[rows],
            times=self.times[rows],
        )

    def where(self, wanted: npt.NDArray[np.bool_]) -> Interactions:
        """The ratings ``wanted: [N]``, of the same users."""
        kept = np.concatenate([[0], np.cumsum(wanted)])
        return replace(
            self,
            starts=kept[self.starts],
            movies=self.movies[wanted],
            ratings=self.ratings[wanted],
            times=self.times[wanted],
        )

    def matrix(self, values: npt.ArrayLike = 1.0) -> sparse.csr_array:
        """``[B, M]`` with ``values: [N]``, or one for all, at the rated movies."""
        data = np.broadcast_to(np.asarray(values, np.float32), self.movies.shape).copy()
        shape = (len(self), self.num_movies)
        return sparse.csr_array((data, self.movies, self.starts), shape=shape)

    def movie_counts(self) -> Integers:
        """``[M]`` ratings of each movie."""
        return np.bincount(self.movies, minlength=self.num_movies)
