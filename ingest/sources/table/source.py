"""A table of ratings or clicks in a file of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from foundation.errors import shortened
from ingest.config import ColumnsConfig, DataConfig
from ingest.errors import DatasetError
from ingest.registry import SOURCES, TABLE
from ingest.sources.base import BYTES_PER_RATING, Source, file_version
from ingest.sources.parsing import MAX_SHOWN
from ingest.sources.table import values
from ingest.sources.table.columns import Columns, can_be_ratings, header_test, rating_columns
from ingest.sources.table.files import TableFile, is_table, opened, stem
from ingest.sources.table.movies import read_movies
from ingest.sources.tables import (
    HIGHEST,
    Tables,
    merge_repeated,
    no_tags,
    ratings_table,
    repeated_rows,
)

READER_VERSION: Final = 2
"""Incremented whenever the same files give different tables."""
_RATINGS: Final = ("ratings", "interactions", "events", "clicks", "reviews", "purchases")
_LINKS: Final = "links"
_MOVIES: Final = ("movies", "items", "products", "catalogue", "catalog")


@dataclass(frozen=True)
class TableSource(Source):
    """The user's own table, under the terms of their owner."""

    config: DataConfig
    ratings: Path
    movies: tuple[Path, ...]
    """Tables of movies, of which later ones add to what earlier ones say."""

    licence: ClassVar[str] = (
        "The ratings were read from a file of the user's own. Their licence is that of the "
        "data's owner."
    )

    @classmethod
    def open(cls, config: DataConfig, downloads: Path) -> TableSource:
        """The table at ``data.path``, or in the folder there.

        Raises:
            DatasetError: if there is none, or several that could be meant.
        """
        path = Path(config.path).expanduser()
        ratings = ratings_file(path)
        named = (Path(config.movies).expanduser(),) if config.movies else ()
        beside = _files_of_movies(path, ratings)
        return cls(cls.name_for(config), config, ratings, named or beside)

    @classmethod
    def name_for(cls, config: DataConfig) -> str:
        """Name of the file, or of the folder that holds it.

        Raises:
            DatasetError: as ``open``.
        """
        path = Path(config.path).expanduser()
        own = path.resolve().name if path.is_dir() else stem(ratings_file(path))
        name = re.sub(r"[^\w.-]+", "-", own).strip(".-") or TABLE
        return f"{name}-{TABLE}" if name in SOURCES else name

    @classmethod
    def expected_ratings(cls, config: DataConfig) -> int:
        """From the file's size; compressed ones take a fourth.

        Raises:
            DatasetError: as ``open``.
        """
        file = ratings_file(Path(config.path).expanduser())
        is_text = file.suffix.lower() in (".csv", ".tsv", ".txt", ".data")
        return (1 if is_text else 4) * file.stat().st_size // BYTES_PER_RATING

    @property
    def version(self) -> dict[str, Any]:
        """Size and time of the last change of each file, and the settings that it is read by."""
        files = [self.ratings, *self.movies]
        settings = {"columns", "rating_scale", "duplicates", "timestamp_unit"}
        return {
            "files": [file_version(file) for file in files if file.is_file()],
            # Files of the same name, size and time may be another data set.
            "folder": str(self.ratings.resolve().parent),
            "settings": self.config.model_dump(mode="json", include=settings),
            "reader_version": READER_VERSION,
        }

    def read(self) -> Tables:
        """Read and validate the files.

        Raises:
            DatasetError: naming the lines that cannot be used, or the column that is not there.
        """
        ratings = _read_ratings(self.ratings, self.config)
        movies, links, notices = read_movies(
            self.movies, ratings.movies, ratings.item, self.config.columns
        )
        return Tables(
            ratings=ratings.table,
            movies=movies,
            links=links,
            tags=no_tags(),
            notices=(*ratings.notices, *notices),
            user_names=ratings.users.names,
            movie_names=ratings.movies.names,
        )


def ratings_file(path: Path) -> Path:
    """The file of ratings at a path: a file, or the one of a folder.

    Raises:
        DatasetError: if there is none, or several that could be meant.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise DatasetError(f"data.path = {str(path)!r} does not exist. Correct it.")
    files = sorted(each for each in path.iterdir() if each.is_file() and is_table(each))
    named = [each for each in files if stem(each).lower() in _RATINGS]
    others = [each for each in files if stem(each).lower() not in (*_MOVIES, _LINKS, "tags")]
    found = named or others
    if len(found) == 1:
        return found[0]
    present = shortened(", ".join(each.name for each in found or sorted(path.iterdir())))
    raise DatasetError(
        f"{path} holds {'several tables' if found else 'no table'} of ratings (found: "
        f"{present or 'nothing'}). Set data.path to the file."
    )


def has_table(path: Path) -> bool:
    """Whether there is a table at a path whose columns of users and items are recognised."""
    try:
        with opened(ratings_file(path), header_test(ColumnsConfig())) as file:
            return can_be_ratings(file)
    except (DatasetError, OSError):
        return False


def _files_of_movies(path: Path, ratings: Path) -> tuple[Path, ...]:
    """Tables of movies and links beside that of ratings, if ``data.path`` is their folder."""
    if not path.is_dir():
        return ()
    files = sorted(each for each in path.iterdir() if each.is_file() and is_table(each))
    movies = [each for each in files if stem(each).lower() in _MOVIES and each != ratings]
    links = [each for each in files if stem(each).lower() == _LINKS]
    return (*movies[:1], *links[:1])


@dataclass(frozen=True)
class _Ratings:
    table: pa.Table
    users: values.Ids
    movies: values.Ids
    item: str
    """Name of the column of movies."""
    notices: tuple[str, ...]


def _read_ratings(path: Path, config: DataConfig) -> _Ratings:
    """RATINGS, in the order of the file.

    Raises:
        DatasetError: naming the lines that cannot be used.
    """
    with opened(path, header_test(config.columns)) as file:
        columns = rating_columns(file, config.columns)
        read = dict(zip(columns.names, file.read(list(columns.names.values())), strict=True))
        count = len(read["user"])
        if not count:
            raise DatasetError(f"{path} holds no rating; expected at least one line of data")
        notices = [*file.notices, f"{path.name}: {file.layout}; {columns.shown}."]
        wrong = values.WrongRows(count)
        users, of_users = values.ids(read["user"], columns.names["user"], wrong)
        movies, of_movies = values.ids(read["item"], columns.names["item"], wrong)
        stars, of_stars = _stars(read.get("rating"), columns, config, wrong)
        times, of_times = _times(read.get("time"), columns, config, wrong)
        found = (of_users, of_movies, of_stars, of_times)
        notices += [f"{path.name}: {notice}." for notice in found if notice]
        if config.duplicates == "refuse":
            _note_repeated(users, movies, file, wrong)
        wrong.refuse(file)
    table = ratings_table(users.numbers, movies.numbers, stars, times)
    if config.duplicates != "refuse":
        table, notice = merge_repeated(table, config.duplicates)
        notices += [f"{path.name}: {notice}."] if notice else []
    return _Ratings(table, users, movies, columns.names["item"], tuple(notices))


def _stars(
    column: pa.ChunkedArray | None, columns: Columns, config: DataConfig, wrong: values.WrongRows
) -> tuple[npt.NDArray[np.float32], str | None]:
    """Ratings in stars, and what the user should know.

    Raises:
        DatasetError: if there are none, and settings say that there are.
    """
    scale = config.rating_scale
    if column is not None:
        found = values.stars(column, columns.names["rating"], scale, wrong)
        if scale is None or values.are_stars(scale):
            return found, None
        return found, f"ratings of {scale[0]:g} to {scale[1]:g} become 0.5 to 5 stars"
    if scale is not None:
        raise DatasetError(
            f"data.rating_scale is {list(scale)}, but no column is recognised as ratings (unused: "
            f"{shortened(', '.join(columns.others)) or 'none'}). Name it: --columns rating=COLUMN"
        )
    return np.full(wrong.num_rows, HIGHEST, np.float32), (
        f"no column has ratings, so every row is a choice, of {HIGHEST:g} stars; only a choice "
        "model can be trained on them: --set task=choice"
    )


def _times(
    column: pa.ChunkedArray | None, columns: Columns, config: DataConfig, wrong: values.WrongRows
) -> tuple[values.Integers, str | None]:
    """Seconds since 1970 UTC, and what the user should know."""
    if column is not None:
        return values.times(column, columns.names["time"], config.timestamp_unit, wrong)
    return np.zeros(wrong.num_rows, np.int64), (
        "no column has times, so all ratings count as equally old; use neither splits by time nor "
        "models with rating times"
    )


def _note_repeated(
    users: values.Ids, movies: values.Ids, file: TableFile, wrong: values.WrongRows
) -> None:
    """Note rows whose user and movie are those of an earlier row."""
    is_repeated, earlier = repeated_rows(users.numbers, movies.numbers)
    if not is_repeated.any():
        return
    numbers = file.numbers(earlier[is_repeated][:MAX_SHOWN].tolist())
    wrong.add(
        is_repeated,
        lambda row: (
            f"user {users.shown(row)} rates movie {movies.shown(row)} a second time (first "
            f"on {file.unit} {numbers[int(earlier[row])]})"
        ),
        "Keep one of each, or choose a rule: --set data.duplicates=last (or mean).",
    )
