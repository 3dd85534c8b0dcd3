"""Everything fitted to the training split, and the movie table encoded with it.

``ncf.data.features`` fits the ``Preprocessor``. It is stored with the prepared ratings and in every
checkpoint, so that a model can be used without the data it was trained on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from foundation.storage import read_parquet
from ncf.data.titles import display_title
from ncf.errors import DataError

FORMAT_VERSION: Final = 2
"""Incremented when the meaning of a file written here, or of a prepared column, changes."""

UNKNOWN: Final = 0
"""Index of a user, movie or decade without training ratings."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NumericColumn:
    """How one numeric feature is imputed, de-skewed and scaled."""

    name: str
    transform: Literal["yeo-johnson", "log1p", "none"]
    """De-skewing, applied before scaling."""
    power: float
    """Yeo-Johnson's lambda; unused by the other transforms."""
    median: float
    """Replaces missing values, in the feature's unit."""
    mean: float
    """Mean of the de-skewed training values."""
    scale: float
    """Standard deviation of the de-skewed training values; 1 if all are equal."""
    indicator: bool
    """Whether a 0/1 feature marks missing values."""

    def apply(self, values: Floats) -> Floats:
        """Standardised feature: ``values: [M]`` with NaN for missing -> ``[M]`` without NaN."""
        filled = np.where(np.isnan(values), self.median, values)
        return (self.deskew(filled) - self.mean) / self.scale

    def deskew(self, values: Floats) -> Floats:
        """De-skewed values, not yet scaled."""
        if self.transform == "log1p":
            return np.log1p(np.maximum(values, 0.0))
        if self.transform == "yeo-johnson":
            # Imported here because it takes half a second, and workers that prepare ratings import
            # this module without calling this method.
            from scipy.stats import yeojohnson

            return np.asarray(yeojohnson(values, lmbda=self.power), dtype=np.float64)
        return values


@dataclass(frozen=True)
class MovieTable:
    """Features of every movie of the catalogue; a movie's position here is its movie index."""

    ids: Integers
    """``[M]`` MovieLens ids, ascending."""
    titles: tuple[str, ...]
    """``[M]`` titles as released."""
    embedding_index: Integers
    """``[M]`` 1..num_movies for movies with a training rating, else ``UNKNOWN``."""
    genres: npt.NDArray[np.bool_]
    """``[M, G]`` which genres of the vocabulary a movie has."""
    decade: Integers
    """``[M]`` 1..D, or ``UNKNOWN``."""
    numeric: npt.NDArray[np.float32]
    """``[M, F]`` standardised numeric features, then the missing indicators."""
    train_counts: Integers
    """``[M]`` number of training ratings."""
    names: dict[str, npt.NDArray[np.int32]] = field(default_factory=dict)
    """By list (directors, cast, keywords) ``[M, L]``: 1..V for entries of the vocabulary,
    ascending, then 0."""
    external_ids: tuple[str, ...] | None = None
    """``[M]`` ids as the data have them, if these are texts."""

    def __len__(self) -> int:
        return len(self.ids)

    def index_of(self, movie_ids: Integers) -> Integers:
        """Movie index of each id, -1 for ids that are not in the catalogue."""
        return _positions(self.ids, movie_ids)

    @cached_property
    def display_titles(self) -> tuple[str, ...]:
        """``[M]`` titles as they are shown, with their articles in front."""
        return tuple(map(display_title, self.titles))


@dataclass(frozen=True)
class Preprocessor:
    """Vocabularies, imputers, scalers, decay reference and movie table of one training split."""

    user_ids: Integers
    """``[U]`` training users, ascending; user index = position + 1."""
    genres: tuple[str, ...]
    """``[G]`` genres of the training movies."""
    decades: tuple[int, ...]
    """``[D]`` release decades of the training movies; decade index = position + 1."""
    numeric: tuple[NumericColumn, ...]
    """How each numeric feature is computed."""
    rating_mean: float
    """Mean training rating, in stars."""
    rating_min: float
    """Lowest training rating; predictions are clipped to it."""
    rating_max: float
    """Highest training rating; predictions are clipped to it."""
    decay_reference: int
    """Time from which the age of ratings counts, in seconds since 1970 UTC."""
    decay_rate_per_day: float
    """Rate of the time decay."""
    movies: MovieTable
    """Features of every movie."""
    vocabularies: dict[str, Integers] = field(default_factory=dict)
    """By list ``[V]``: TMDb ids of the entries that occur in enough training movies, ascending."""
    external_user_ids: tuple[str, ...] | None = None
    """``[U]`` ids of users as the data have them, if these are texts."""

    @cached_property
    def num_users(self) -> int:
        """Users with a training rating."""
        return len(self.user_ids)

    @cached_property
    def num_movies(self) -> int:
        """Movies with a training rating."""
        return int(self.movies.embedding_index.max(initial=0))

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """Names of the columns of ``movies.numeric``."""
        values = tuple(column.name for column in self.numeric)
        return values + tuple(f"{c.name}_missing" for c in self.numeric if c.indicator)

    def user_index(self, user_ids: Integers) -> Integers:
        """Index of each user, ``UNKNOWN`` for those without a training rating."""
        return _positions(self.user_ids, user_ids) + 1

    def decay_weight(self, timestamps: Integers) -> npt.NDArray[np.float32]:
        """exp(-rate * age in days) of each rating, in (0, 1]."""
        age_days = np.maximum(self.decay_reference - timestamps, 0) / 86_400.0
        weight = np.exp(-self.decay_rate_per_day * age_days).astype(np.float32)
        # A very old rating's weight would round to 0, and normalising such weights gives 0 / 0.
        return np.maximum(weight, np.finfo(np.float32).tiny)

    def save(self, filesystem: fs.FileSystem, folder: str) -> None:
        """Write ``fitted.json``, ``users.parquet`` and ``movies.parquet`` into ``folder``."""
        filesystem.create_dir(folder, recursive=True)
        users = pa.table({"user_id": self.user_ids})
        if self.external_user_ids is not None:
            users = users.append_column("external_id", [list(self.external_user_ids)])
        pq.write_table(users, f"{folder}/users.parquet", filesystem=filesystem)
        pq.write_table(_movies_to_arrow(self), f"{folder}/movies.parquet", filesystem=filesystem)
        with filesystem.open_output_stream(f"{folder}/fitted.json") as stream:
            stream.write(json.dumps(_scalars(self), indent=2).encode())

    @classmethod
    def load(cls, filesystem: fs.FileSystem, folder: str) -> Preprocessor:
        """Read a preprocessor that ``save`` wrote.

        Raises:
            DataError: if a file is missing, damaged or of another format version.
        """
        try:
            with filesystem.open_input_stream(f"{folder}/fitted.json") as stream:
                values = json.loads(stream.read())
            users = read_parquet(f"{folder}/users.parquet", filesystem)
            movies = read_parquet(f"{folder}/movies.parquet", filesystem)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read the preprocessor in {folder}: {error}") from error
        found = values.pop("format_version", None)
        if found != FORMAT_VERSION:
            raise DataError(
                f"the preprocessor in {folder} has format version {found}, this program reads "
                f"version {FORMAT_VERSION}. Prepare the data and train again."
            )
        try:
            return _from_parts(values, users, movies)
        except (KeyError, TypeError) as error:
            raise DataError(f"the preprocessor in {folder} is damaged: {error}") from error


def save_preprocessor(state: Preprocessor, folder: Path) -> None:
    """Write ``state`` into a local folder."""
    state.save(fs.LocalFileSystem(), str(folder))


def load_preprocessor(folder: Path) -> Preprocessor:
    """Read a preprocessor from a local folder; raises as ``Preprocessor.load``."""
    return Preprocessor.load(fs.LocalFileSystem(), str(folder))


def _positions(sorted_ids: Integers, wanted: Integers) -> Integers:
    """Position of each wanted id among the sorted ones, -1 where absent."""
    if len(sorted_ids) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    found = np.minimum(np.searchsorted(sorted_ids, wanted), len(sorted_ids) - 1)
    return np.where(sorted_ids[found] == wanted, found, -1)


def _scalars(state: Preprocessor) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "genres": state.genres,
        "decades": state.decades,
        "numeric": [asdict(column) for column in state.numeric],
        "rating_mean": state.rating_mean,
        "rating_min": state.rating_min,
        "rating_max": state.rating_max,
        "decay_reference": state.decay_reference,
        "decay_rate_per_day": state.decay_rate_per_day,
        "vocabularies": {name: ids.tolist() for name, ids in state.vocabularies.items()},
    }


def _movies_to_arrow(state: Preprocessor) -> pa.Table:
    movies = state.movies
    genre_lists = [np.flatnonzero(row).astype(np.int16) for row in movies.genres]
    columns: dict[str, Any] = {
        "movie_id": movies.ids,
        "title": list(movies.titles),
        "embedding_index": movies.embedding_index,
        "train_count": movies.train_counts,
        "genres": pa.array(genre_lists, type=pa.list_(pa.int16())),
        "decade": movies.decade,
    }
    for position, name in enumerate(state.numeric_names):
        columns[f"numeric.{name}"] = movies.numeric[:, position]
    for name, lists in movies.names.items():
        columns[f"names.{name}"] = pa.array([row[row > 0] for row in lists], pa.list_(pa.int32()))
    if movies.external_ids is not None:
        columns["external_id"] = list(movies.external_ids)
    return pa.table(columns)


def padded_lists(lists: pa.ListArray) -> npt.NDArray[np.int32]:
    """Lists as rows of ``[M, L]``, padded with zeros to the longest."""
    lengths = np.asarray(lists.value_lengths().fill_null(0))
    result = np.zeros((len(lists), int(lengths.max(initial=0))), dtype=np.int32)
    result[np.arange(result.shape[1]) < lengths[:, None]] = np.asarray(lists.flatten())
    return result


def _from_parts(values: dict[str, Any], users: pa.Table, movies: pa.Table) -> Preprocessor:
    genre_vocabulary = tuple(values.pop("genres"))
    genre_lists = movies["genres"].combine_chunks()
    genres = np.zeros((len(movies), len(genre_vocabulary)), dtype=np.bool_)
    counts = np.asarray(genre_lists.value_lengths())
    genres[np.repeat(np.arange(len(movies)), counts), np.asarray(genre_lists.flatten())] = True
    numeric = [movies[name].to_numpy() for name in movies.column_names if "numeric." in name]
    vocabularies = values.pop("vocabularies", {})
    table = MovieTable(
        ids=movies["movie_id"].to_numpy(),
        titles=tuple(movies["title"].to_pylist()),
        embedding_index=movies["embedding_index"].to_numpy(),
        genres=genres,
        decade=movies["decade"].to_numpy(),
        numeric=np.stack(numeric, axis=1)
        if numeric
        else np.zeros((len(movies), 0), dtype=np.float32),
        train_counts=movies["train_count"].to_numpy(),
        names={
            name: padded_lists(movies[f"names.{name}"].combine_chunks()) for name in vocabularies
        },
        external_ids=_external_ids(movies),
    )
    return Preprocessor(
        user_ids=users["user_id"].to_numpy(),
        genres=genre_vocabulary,
        decades=tuple(values.pop("decades")),
        numeric=tuple(NumericColumn(**column) for column in values.pop("numeric")),
        movies=table,
        vocabularies={n: np.array(ids, dtype=np.int64) for n, ids in vocabularies.items()},
        external_user_ids=_external_ids(users),
        **values,
    )


def _external_ids(table: pa.Table) -> tuple[str, ...] | None:
    if "external_id" not in table.column_names:
        return None
    return tuple(table["external_id"].to_pylist())
