"""Statistics of a raw data set, for the data card of a report.

Ratings are read in batches, and only counts are kept of each, so memory grows with the number of
users and movies, not with the number of ratings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from ncf.data.dataset import PreparedDataset
from ncf.data.features import TMDB_COLUMNS, TMDB_LISTS
from ncf.data.preprocessor import UNKNOWN

Integers = npt.NDArray[np.int64]

_BATCH: Final = 1_000_000


@dataclass(frozen=True)
class RatingCounts:
    """Number of ratings by value, year, user and movie."""

    first: int
    """Time of the oldest rating, in seconds since 1970 UTC."""
    last: int
    """Time of the newest rating, in seconds since 1970 UTC."""
    by_stars: dict[float, int]
    """Number of ratings with each value that occurs, ascending."""
    by_year: dict[int, int]
    """Number of ratings in each year (UTC) with ratings, ascending."""
    per_user: Integers
    """``[U]`` ratings of each user with ratings, by ascending user id."""
    movie_ids: Integers
    """``[M]`` movies that have ratings, ascending."""
    per_movie: Integers
    """``[M]`` ratings of each of them."""

    @classmethod
    def of(cls, filesystem: fs.FileSystem, folder: str) -> RatingCounts:
        """Count the ratings of the raw data set in ``folder``, which must have at least one."""
        users, movies, stars, years = _Counter(), _Counter(), _Counter(), _Counter()
        ends: list[int] = []
        columns = ["user_id", "movie_id", "rating", "timestamp"]
        with filesystem.open_input_file(f"{folder}/ratings.parquet") as file:
            for batch in pq.ParquetFile(file).iter_batches(_BATCH, columns=columns):
                users.add(batch["user_id"])
                movies.add(batch["movie_id"])
                stars.add(batch["rating"])
                years.add(pc.year(batch["timestamp"].cast(pa.timestamp("s", tz="UTC"))))
                ends += pc.min_max(batch["timestamp"]).as_py().values()
        movie_ids, per_movie = movies.total()
        return cls(
            first=min(ends),
            last=max(ends),
            by_stars=dict(zip(*(values.tolist() for values in stars.total()), strict=True)),
            by_year=dict(zip(*(values.tolist() for values in years.total()), strict=True)),
            per_user=users.total()[1],
            movie_ids=movie_ids.astype(np.int64),
            per_movie=per_movie,
        )


class _Counter:
    """Counts equal values of a column that is read in batches."""

    def __init__(self) -> None:
        self._values: list[npt.NDArray[np.number]] = []
        self._counts: list[Integers] = []

    def add(self, column: pa.Array) -> None:
        """Count one more batch."""
        found = pc.value_counts(column)
        self._values.append(found.field("values").to_numpy())
        self._counts.append(found.field("counts").to_numpy())

    def total(self) -> tuple[npt.NDArray[np.number], Integers]:
        """Values that occur, ascending, and the count of each."""
        values, position = np.unique(np.concatenate(self._values), return_inverse=True)
        counts = np.bincount(position, np.concatenate(self._counts))
        return values, counts.astype(np.int64)


@dataclass(frozen=True)
class Coverage:
    """How much of the data has a value in one field."""

    name: str
    num_movies: int
    """Movies of the catalogue with a value."""
    num_ratings: int
    """Ratings of these movies."""


def coverage(
    filesystem: fs.FileSystem, folder: str, counts: RatingCounts, *, use_tmdb: bool
) -> tuple[Coverage, ...]:
    """Coverage of the movies' fields from MovieLens, and with ``use_tmdb`` of those from TMDb.

    ``folder`` is the raw data set, ``counts`` its rating counts.
    """

    def of(name: str, movie_ids: Integers) -> Coverage:
        rated = np.isin(counts.movie_ids, movie_ids)
        return Coverage(name, len(movie_ids), int(counts.per_movie[rated].sum()))

    def filled(table: str, column: str) -> Integers:
        file = f"{folder}/{table}.parquet"
        found = pq.read_table(file, columns=["movie_id", column], filesystem=filesystem)
        ids: Integers = found.filter(_is_filled(found[column]))["movie_id"].to_numpy()
        return ids

    def fields() -> Iterator[Coverage]:
        yield of("year", filled("movies", "year"))
        yield of("genres", filled("movies", "genres"))
        yield of("tags", np.unique(filled("tags", "tag")))
        if use_tmdb:
            for column in (*TMDB_COLUMNS, *TMDB_LISTS):
                yield of(column, filled("tmdb", column))

    return tuple(fields())


def _is_filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each entry has a value, or for lists at least one item."""
    if pa.types.is_list(column.type):
        return pc.greater(pc.fill_null(pc.list_value_length(column), 0), 0)
    return pc.is_valid(column)


@dataclass(frozen=True)
class Unknown:
    """Rows of a split whose user or movie has no training rating."""

    num_rows: int
    """Rows of the split."""
    user_rows: int
    """Rows whose user has no training rating."""
    users: int
    """Number of these users."""
    movie_rows: int
    """Rows whose movie has no training rating."""
    movies: int
    """Number of these movies."""

    @classmethod
    def of(cls, prepared: PreparedDataset, split: str) -> Unknown:
        """Count the unknown rows of a split that has rows."""
        rows = prepared.table(split, ["user_id", "user_index", "movie_index"])
        movies = rows["movie_index"].to_numpy()
        no_user = rows["user_index"].to_numpy() == UNKNOWN
        no_movie = prepared.preprocessor.movies.embedding_index[movies] == UNKNOWN
        return cls(
            num_rows=len(rows),
            user_rows=int(no_user.sum()),
            users=len(np.unique(rows["user_id"].to_numpy()[no_user])),
            movie_rows=int(no_movie.sum()),
            movies=len(np.unique(movies[no_movie])),
        )
