"""Movie features: join MovieLens with TMDb, impute, de-skew, encode. No Ray, no files.

Only movies with a training rating take part in fitting.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pandas as pd
from sklearn.preprocessing import PowerTransformer

from ncf.config import FeaturesConfig, TimeDecayConfig
from ncf.data.preprocessor import UNKNOWN, Floats, Integers, MovieTable, NumericColumn, Preprocessor
from ncf.errors import DataError

TMDB_COLUMNS: Final = (
    "budget",
    "revenue",
    "popularity",
    "vote_average",
    "vote_count",
    "runtime",
    "release_date",
)
"""Columns of TMDb's table that become features, one value a movie."""

TMDB_LISTS: Final = ("directors", "cast", "keywords")
"""Columns of TMDb's table with a list of ids for each movie, in order."""


_NOT_SKEWED: Final = frozenset({"year"})
"""Features on a scale without a meaningful zero; powers of values in the thousands overflow."""


@dataclass(frozen=True)
class TrainingStatistics:
    """Result of one pass over the training rows; see ``ncf.data.prepare.training_statistics``."""

    user_ids: Integers
    """``[U]`` users, ascending."""
    movie_ids: Integers
    """``[M]`` movies, ascending."""
    movie_counts: Integers
    """``[M]`` ratings of each of these movies."""
    rating_sum: float
    """Sum of all ratings, in stars."""
    rating_min: float
    """Lowest rating."""
    rating_max: float
    """Highest rating."""
    newest: int
    """Largest timestamp, in seconds since 1970 UTC."""

    @property
    def num_ratings(self) -> int:
        """Number of training rows."""
        return int(self.movie_counts.sum())


def join_movies(movies: pd.DataFrame, tmdb: pd.DataFrame | None) -> pd.DataFrame:
    """One row a movie, sorted by ``movie_id``: ``title``, ``genres``, ``year`` and TMDb's columns.

    The release year comes from the title, else from TMDb's release date. Without TMDb its columns
    and lists hold missing values.
    """
    if movies["movie_id"].duplicated().any():
        twice = movies.loc[movies["movie_id"].duplicated(), "movie_id"].iloc[0]
        raise DataError(
            f"movie_id {twice} occurs more than once in the movies table, expected once"
        )
    if tmdb is None:
        joined = movies.assign(**dict.fromkeys((*TMDB_COLUMNS, *TMDB_LISTS), np.nan))
    else:
        lists = [name for name in TMDB_LISTS if name in tmdb]
        joined = movies.merge(
            tmdb[["movie_id", *TMDB_COLUMNS, *lists]],
            on="movie_id",
            how="left",
            validate="one_to_one",
        )
    released = pd.to_datetime(joined["release_date"], errors="coerce").dt.year
    joined["year"] = joined["year"].astype("float64").fillna(released.astype("float64"))
    return joined.sort_values("movie_id", ignore_index=True)


def fit(
    statistics: TrainingStatistics,
    movies: pd.DataFrame,
    features: FeaturesConfig,
    time_decay: TimeDecayConfig,
) -> Preprocessor:
    """Fit the preprocessor to the training rows' statistics and the movies in them.

    ``movies`` comes from ``join_movies`` and holds the whole catalogue.
    """
    ids = movies["movie_id"].to_numpy(dtype=np.int64)
    position = np.searchsorted(ids, statistics.movie_ids)
    if len(ids) == 0 or (ids[np.minimum(position, len(ids) - 1)] != statistics.movie_ids).any():
        absent = np.setdiff1d(statistics.movie_ids, ids)
        raise DataError(
            f"{len(absent)} rated movies are not in the movies table, the first is {absent[0]}"
        )
    counts = np.zeros(len(ids), dtype=np.int64)
    counts[position] = statistics.movie_counts
    seen = counts > 0
    raw = _numeric_values(movies, features, counts)
    columns = tuple(
        _fit_column(name, values, seen, features)
        for name, values in raw.items()
        if np.isfinite(values[seen]).any()
    )
    genres = tuple(sorted({g for row in movies.loc[seen, "genres"] for g in row}))
    decades = tuple(sorted({d for d in _decades(movies)[seen] if d > 0}))
    embedding_index = np.where(seen, np.cumsum(seen), UNKNOWN)
    names = {
        name: _fit_names(movies[name], seen, features)
        for name in features.names
        if name in movies and movies[name].notna().any()
    }
    return Preprocessor(
        user_ids=statistics.user_ids,
        genres=genres,
        decades=tuple(int(d) for d in decades),
        numeric=columns,
        rating_mean=statistics.rating_sum / statistics.num_ratings,
        rating_min=statistics.rating_min,
        rating_max=statistics.rating_max,
        decay_reference=_reference(time_decay, statistics.newest),
        decay_rate_per_day=time_decay.rate_per_day,
        movies=MovieTable(
            ids=ids,
            titles=tuple(movies["title"]),
            embedding_index=embedding_index,
            genres=_multi_hot(movies, genres),
            decade=_decade_index(movies, decades),
            numeric=_numeric_matrix(raw, columns, len(ids)),
            train_counts=counts,
            names={name: lists for name, (_, lists) in names.items()},
        ),
        vocabularies={name: vocabulary for name, (vocabulary, _) in names.items()},
    )


def _numeric_values(
    movies: pd.DataFrame, features: FeaturesConfig, counts: Integers
) -> dict[str, Floats]:
    """Raw numeric features, ``[M]`` each, NaN where missing."""
    # The movie of a training row has at least one rating, so a count of 0 would be extrapolated:
    # movies without training ratings count as movies with one.
    columns = movies.assign(train_ratings=np.maximum(counts, 1))
    return {
        name: pd.to_numeric(columns[name]).to_numpy(dtype=np.float64, na_value=np.nan)
        for name in features.numeric
    }


def _fit_column(
    name: str, values: Floats, seen: np.ndarray, features: FeaturesConfig
) -> NumericColumn:
    known = values[seen & np.isfinite(values)]
    power = 1.0
    transform = "none" if name in _NOT_SKEWED else features.transform
    if transform == "yeo-johnson" and known.std() > 0:
        transformer = PowerTransformer(method="yeo-johnson", standardize=False)
        power = float(transformer.fit(known[:, None]).lambdas_[0])
    unscaled = NumericColumn(
        name=name,
        transform=transform,
        power=power,
        median=float(np.median(known)),
        mean=0.0,
        scale=1.0,
        indicator=features.missing_indicators and bool(np.isnan(values[seen]).any()),
    )
    deskewed = unscaled.deskew(known)
    mean, spread = float(deskewed.mean()), float(deskewed.std())
    # The mean of equal values may differ from them by rounding, which must not become the scale.
    is_constant = spread <= 1e-12 * abs(mean)
    return replace(unscaled, mean=mean, scale=1.0 if is_constant else spread)


def _numeric_matrix(
    raw: dict[str, Floats], columns: tuple[NumericColumn, ...], num_movies: int
) -> np.ndarray:
    """``[M, F]``: standardised values, then the missing indicators."""
    values = [column.apply(raw[column.name]) for column in columns]
    missing = [np.isnan(raw[c.name]).astype(np.float64) for c in columns if c.indicator]
    # The empty block keeps the shape right for a model without numeric features.
    empty = np.zeros((num_movies, 0))
    return np.column_stack([empty, *values, *missing]).astype(np.float32)


def _fit_names(
    lists: pd.Series, seen: np.ndarray, features: FeaturesConfig
) -> tuple[Integers, np.ndarray]:
    """The vocabulary ``[V]`` of a list of ids, and each movie's entries ``[M, L]``, ascending."""
    empty = np.zeros(0, dtype=np.int64)
    kept = [
        np.asarray(ids, dtype=np.int64)[: features.max_names] if isinstance(ids, Sized) else empty
        for ids in lists
    ]
    of_seen = [np.unique(ids) for ids, is_seen in zip(kept, seen, strict=True) if is_seen]
    found, counts = np.unique(np.concatenate(of_seen), return_counts=True)
    vocabulary = found[counts >= features.min_movies_per_name].astype(np.int64)
    known = [np.intersect1d(ids, vocabulary) for ids in kept]
    width = max(map(len, known), default=0)
    entries = np.zeros((len(kept), width), dtype=np.int32)
    for row, ids in enumerate(known):
        entries[row, : len(ids)] = np.searchsorted(vocabulary, ids) + 1
    return vocabulary, entries


def _multi_hot(movies: pd.DataFrame, genres: tuple[str, ...]) -> np.ndarray:
    position = {genre: i for i, genre in enumerate(genres)}
    result = np.zeros((len(movies), len(genres)), dtype=np.bool_)
    for row, names in enumerate(movies["genres"]):
        result[row, [position[name] for name in names if name in position]] = True
    return result


def _decades(movies: pd.DataFrame) -> Integers:
    """Release decade such as 1990, 0 where the year is unknown."""
    years = movies["year"].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(years), 0, np.nan_to_num(years) // 10 * 10).astype(np.int64)


def _decade_index(movies: pd.DataFrame, decades: tuple[int, ...]) -> Integers:
    position = {decade: i + 1 for i, decade in enumerate(decades)}
    return np.array([position.get(int(d), UNKNOWN) for d in _decades(movies)], dtype=np.int64)


def _reference(time_decay: TimeDecayConfig, newest: int) -> int:
    if time_decay.reference == "newest-training-rating":
        return newest
    day = time_decay.reference
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
