"""A table of ratings or clicks in a file of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from foundation.errors import shortened
from ingest.config import DataConfig
from ingest.errors import DatasetError
from ingest.registry import SOURCES, TABLE
from ingest.sources.base import BYTES_PER_RATING, Source, file_version
from ingest.sources.parsing import MAX_SHOWN
from ingest.sources.table import values
from ingest.sources.table.columns import OF_RATINGS, can_be_ratings, columns_of
from ingest.sources.table.files import TableFile, is_table, opened, stem
from ingest.sources.table.movies import read_movies
from ingest.sources.tables import HIGHEST, Tables, no_tags, ratings_table, repeated_pairs

READER_VERSION: Final = 1
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
            "settings": self.config.model_dump(mode="json", include=settings),
            "reader_version": READER_VERSION,
        }

    def read(self) -> Tables:
        """Read and validate the files.

        Raises:
            DatasetError: naming the lines that cannot be used, or the column that is not there.
        """
        ratings = _read_ratings(self.ratings, self.config)
        movies, links, notices = read_movies(self.movies, ratings.movies, self.config.columns)
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
        with opened(ratings_file(path)) as file:
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
    notices: tuple[str, ...]


def _read_ratings(path: Path, config: DataConfig) -> _Ratings:
    """RATINGS, in the order of the file.

    Raises:
        DatasetError: naming the lines that cannot be used.
    """
    with opened(path) as file:
        columns = columns_of(file, config.columns, OF_RATINGS, ("user", "item"))
        read = dict(zip(columns, file.read(list(columns.values())), strict=True))
        count = len(read["user"])
        if not count:
            raise DatasetError(f"{path} holds no rating; expected at least one line of data")
        named = ", ".join(f"{meaning} = {name}" for meaning, name in columns.items())
        notices = [f"{path.name}: {file.layout}; columns: {named}."]
        wrong = values.WrongRows()
        users = values.ids(read["user"], columns["user"], wrong)
        movies = values.ids(read["item"], columns["item"], wrong)
        if "rating" in columns:
            scale = config.rating_scale
            stars = values.stars(read["rating"], columns["rating"], scale, wrong)
            if scale is not None and not values.are_stars(scale):
                notices.append(f"{path.name}: {scale[0]:g} to {scale[1]:g} are 0.5 to 5 stars.")
        else:
            stars = np.full(count, HIGHEST, np.float32)
            notices.append(
                f"{path.name} has no ratings: every row is a choice, of {HIGHEST:g} stars. Only a "
                "choice model can be trained on them: --set task=choice."
            )
        if "time" in columns:
            times, notice = values.times(
                read["time"], columns["time"], config.timestamp_unit, wrong
            )
            notices += [f"{path.name}: {notice}."] if notice else []
        else:
            times = np.zeros(count, np.int64)
            notices.append(
                f"{path.name} has no times: all ratings count as equally old, so use neither "
                "splits by time nor models with rating times."
            )
        if config.duplicates == "refuse":
            _note_repeated(users, movies, file, wrong)
        file.refuse(wrong.first, wrong.count, " ".join(dict.fromkeys(wrong.advice)))
    table = ratings_table(users.numbers, movies.numbers, stars, times)
    if config.duplicates != "refuse":
        merged = merge_repeated(table, mean=config.duplicates == "mean")
        if len(merged) < count:
            notices.append(
                f"{path.name}: {count - len(merged):,} repeated ratings of a user and a movie were "
                f"merged (data.duplicates = {config.duplicates})."
            )
        table = merged
    return _Ratings(table, users, movies, tuple(notices))


def _note_repeated(
    users: values.Ids, movies: values.Ids, file: TableFile, wrong: values.WrongRows
) -> None:
    pairs, count = repeated_pairs(users.numbers, movies.numbers, MAX_SHOWN)
    if not pairs:
        return
    numbers = file.numbers([first for first, _ in pairs])
    wrong.first += [
        (
            second,
            f"user {users.shown(second)} rates movie {movies.shown(second)} a second time (first "
            f"on {file.unit} {numbers[first]})",
        )
        for first, second in pairs
    ]
    wrong.count += count
    wrong.advice.append("Keep one of each, or choose a rule: --set data.duplicates=last (or mean).")


def merge_repeated(ratings: pa.Table, *, mean: bool) -> pa.Table:
    """One rating for each user and movie: the last one, or the mean at the time of the last one."""
    frame = ratings.to_pandas()
    keys = ["user_id", "movie_id"]
    ordered = frame.sort_values(["timestamp", "row"], kind="stable")
    last = ordered.drop_duplicates(keys, keep="last").sort_values("row")
    if mean:
        means = frame.groupby(keys)["rating"].mean()
        last["rating"] = means.loc[pd.MultiIndex.from_frame(last[keys])].to_numpy(np.float32)
    columns = (last[name].to_numpy() for name in (*keys, "rating", "timestamp"))
    return ratings_table(*columns)
