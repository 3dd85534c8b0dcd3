"""The four tables of a data set, and functions that build them from columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS


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


def no_tags() -> pa.Table:
    """TAGS without rows."""
    return TAGS.empty_table()


def _arrays(columns: Iterable[Any], schema: pa.Schema) -> list[Any]:
    """Arrow arrays of the schema's types."""
    return [
        column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
