"""The four tables of a data set, and functions that build them from columns and check them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from foundation.schemas import LINKS, MOVIES, NAMES, RATINGS, TAGS
from foundation.times import DAY_S, now
from ingest.errors import DatasetError

LOWEST, HIGHEST = 0.5, 5.0
"""Range of ratings, in stars."""


@dataclass(frozen=True)
class Tables:
    """The four tables of a data set, with the schemas of ``foundation.schemas``."""

    ratings: pa.Table
    movies: pa.Table
    links: pa.Table
    tags: pa.Table
    notices: tuple[str, ...] = ()
    """What the user should know about the data."""
    noise_floor_rmse: float | None = None
    """RMSE in stars that no model can beat; known of synthetic data only."""
    user_names: tuple[str, ...] | None = None
    """The ids of users as the source has them, if they are texts: user i has the i-th, from 1."""
    movie_names: tuple[str, ...] | None = None
    """The ids of movies, likewise."""


def ratings_table(users: Any, movies: Any, stars: Any, times: Any) -> pa.Table:
    """RATINGS from arrays or lists of equal length, in the order given.

    Args:
        users: ids of users, whole numbers of 64 bits.
        movies: ids of movies, whole numbers of 64 bits.
        stars: ratings, 0.5 to 5.
        times: seconds since 1970-01-01 UTC.
    """
    columns = [np.arange(len(users)), users, movies, stars, times]
    return pa.table(_arrays(columns, RATINGS), schema=RATINGS)


def movies_table(
    movies: Any,
    titles: Sequence[str],
    years: Sequence[int | None] | None = None,
    genres: Iterable[Sequence[str]] | None = None,
) -> pa.Table:
    """MOVIES, one row a movie; years and genres may be unknown."""
    count = len(titles)
    years = [None] * count if years is None else years
    genres = [()] * count if genres is None else list(genres)
    return pa.table(_arrays([movies, titles, years, genres], MOVIES), schema=MOVIES)


def links_table(
    movies: Any,
    imdb_ids: Sequence[str | None] | None = None,
    tmdb_ids: Sequence[int | None] | None = None,
) -> pa.Table:
    """LINKS, one row a movie; a source without links leaves the ids out."""
    nothing = [None] * len(movies)
    columns = [movies, imdb_ids or nothing, tmdb_ids or nothing]
    return pa.table(_arrays(columns, LINKS), schema=LINKS)


def names_table(names: Sequence[str]) -> pa.Table:
    """NAMES: texts as ids, numbered from 1."""
    return pa.table([np.arange(1, len(names) + 1), list(names)], schema=NAMES)


def no_tags() -> pa.Table:
    """TAGS without rows."""
    return TAGS.empty_table()


def check(tables: Tables, source: str) -> None:
    """Refuse tables that the rest of the program cannot use, whatever their source.

    Sources check their files line by line, so that messages name the line; this names rows, counted
    from 0.

    Raises:
        DatasetError: if there is no rating, or ratings are out of range, without a movie, of a
            negative or future time, or of a pair of a user and a movie that has one already.
    """
    ratings = tables.ratings
    if not ratings.num_rows:
        raise DatasetError(f"{source} holds no rating; expected at least one")
    stars, times = ratings["rating"].to_numpy(), ratings["timestamp"].to_numpy()
    known = pc.is_in(ratings["movie_id"], tables.movies["movie_id"]).to_numpy()
    for wrong, expected in (
        (~((stars >= LOWEST) & (stars <= HIGHEST)), f"{LOWEST:g} to {HIGHEST:g} stars"),
        (times < 0, "a time of 0 or more seconds since 1970-01-01"),
        (times > now() + DAY_S, "a time that is not in the future, in seconds since 1970-01-01"),
        (~known, "a movie that is in the table of movies"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            found = ratings.slice(row, 1).to_pylist()[0]
            raise DatasetError(f"{source}, row {row}: found {found}, expected {expected}")
    pair = first_repeated_pair(ratings["user_id"].to_numpy(), ratings["movie_id"].to_numpy())
    if pair is not None:
        user, movie = (ratings[name][pair[0]].as_py() for name in ("user_id", "movie_id"))
        raise DatasetError(
            f"{source}, row {pair[1]}: user {user} rates movie {movie} a second time (first in row "
            f"{pair[0]}). Expected one rating for each user and movie."
        )


def first_repeated_pair(
    users: npt.NDArray[np.int64], movies: npt.NDArray[np.int64]
) -> tuple[int, int] | None:
    """The rows of the first pair of a user and a movie that occurs twice, if there is one."""
    pairs, _ = repeated_pairs(users, movies, 1)
    return pairs[0] if pairs else None


def repeated_pairs(
    users: npt.NDArray[np.int64], movies: npt.NDArray[np.int64], limit: int
) -> tuple[list[tuple[int, int]], int]:
    """Rows whose pair of a user and a movie occurs in an earlier row: the first ``limit``, each
    with the row before it that has the same pair, and the number of all."""
    keys = _pair_keys(users, movies)
    if (np.diff(keys) > 0).all():  # releases are sorted by user and movie
        return [], 0
    ordered = np.sort(keys)
    if (np.diff(ordered) > 0).all():
        return [], 0
    order = np.argsort(keys, kind="stable")
    repeats = np.flatnonzero(np.diff(keys[order]) == 0)
    earliest = repeats[np.argsort(order[repeats + 1])][:limit]
    return [(int(order[at]), int(order[at + 1])) for at in earliest], len(repeats)


def repeated_rows(
    users: npt.NDArray[np.int64], movies: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """``[N]`` which rows repeat a pair of an earlier row, and the first row of each row's pair."""
    keys = _pair_keys(users, movies)
    order = np.argsort(keys, kind="stable")
    begins = np.concatenate([[True], np.diff(keys[order]) != 0])
    first = np.empty(len(keys), np.int64)
    first[order] = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
    return first != np.arange(len(keys)), first


def merge_repeated(ratings: pa.Table, rule: str) -> tuple[pa.Table, str | None]:
    """One rating for each user and movie, and a notice if some were merged.

    ``rule`` is ``last``, of ratings of the same time that of the later row, or ``mean``, at the
    time of the last one.
    """
    import pandas as pd  # takes long, and most tables do without

    frame = ratings.to_pandas()
    keys = ["user_id", "movie_id"]
    ordered = frame.sort_values(["timestamp", "row"], kind="stable")
    last = ordered.drop_duplicates(keys, keep="last").sort_values("row")
    if len(last) == len(frame):
        return ratings, None
    if rule == "mean":
        means = frame.groupby(keys)["rating"].mean()
        last["rating"] = means.loc[pd.MultiIndex.from_frame(last[keys])].to_numpy(np.float32)
    return ratings_table(*(last[name].to_numpy() for name in (*keys, "rating", "timestamp"))), (
        f"{len(frame) - len(last):,} repeated ratings of a user and a movie were merged "
        f"(data.duplicates = {rule})"
    )


def _pair_keys(
    users: npt.NDArray[np.int64], movies: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """One number for each pair, distinct for distinct pairs; ids may be any 64-bit numbers."""
    span = int(movies.max()) - int(movies.min()) + 1
    if (int(users.max()) - int(users.min()) + 1) * span < 2**63:
        return (users - users.min()) * span + (movies - movies.min())
    _, user_codes = np.unique(users, return_inverse=True)
    codes, movie_codes = np.unique(movies, return_inverse=True)
    keys: npt.NDArray[np.int64] = user_codes.astype(np.int64) * len(codes) + movie_codes
    return keys


def _arrays(columns: Iterable[Any], schema: pa.Schema) -> list[Any]:
    """Arrow arrays of the schema's types."""
    return [
        column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
