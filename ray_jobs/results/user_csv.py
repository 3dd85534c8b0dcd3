"""CSV files for a trained model: (user, movie) pairs to predict, and the ratings of a new user."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from foundation.errors import shortened
from foundation.times import problem as times_problem
from ingest.errors import DatasetError
from ingest.sources.parsing import (
    Format,
    line_of,
    parse_int,
    quoted,
    read_columns,
    read_header,
    read_records,
)
from ncf.data.preprocessor import Integers
from ncf.data.titles import display_title, plain, without_year
from ncf.errors import UnknownIdError
from ncf.inference.ids import UNKNOWN_USER, TextIds
from ncf.inference.recommender import Recommender

logger = logging.getLogger(__name__)

_FORM: Final = Format()


@dataclass(frozen=True)
class Rated:
    """The ratings of one user."""

    movies: Integers
    """``[N]`` ids, each once."""
    ratings: np.ndarray
    """``[N]`` float32, stars."""
    times: Integers | None
    """``[N]`` seconds since 1970 UTC, if they are known."""


@dataclass(frozen=True)
class _Line:
    """A line of a file of ratings, parsed as far as that needs no model."""

    where: str
    """For messages: file and line."""
    number: int
    movie: str
    """Id or title."""
    stars: float
    time: int | None


def check_ratings(path: Path) -> None:
    """Read a file for ``read_ratings`` as far as that needs no model.

    Raises:
        DatasetError: naming the line, if the file, a column or a value is missing or wrong, or
            there is no rating at all.
    """
    _lines(path)


def read_ratings(path: Path, recommender: Recommender) -> Rated:
    """Read ``movieId`` or ``title``, ``rating`` and, if there is one, ``timestamp``.

    Raises:
        DatasetError: naming the line, if the file, a column or a value is missing or wrong, a movie
            is unknown or stands there twice, or there is no rating at all.
    """
    key, lines = _lines(path)
    preprocessor = recommender.checkpoint.preprocessor
    movies: dict[int, int] = {}
    for line in lines:
        movie = _movie(recommender, key, line.movie, line.where)
        if movie in movies:
            raise DatasetError(
                f"{line.where}: {recommender.title(movie)!r} appears a second time (first on line "
                f"{movies[movie]}). Keep one of the two lines."
            )
        movies[movie] = line.number
        if not preprocessor.rating_min <= line.stars <= preprocessor.rating_max:
            raise DatasetError(
                f"{line.where}: rating is {line.stars:g}, expected a number from "
                f"{preprocessor.rating_min:g} to {preprocessor.rating_max:g}, as in the training "
                "data"
            )
    times = [line.time for line in lines if line.time is not None]
    seconds = np.array(times, np.int64) if times else None
    if seconds is not None:
        problem = times_problem(seconds, preprocessor.decay_reference)
        if problem is not None:
            raise DatasetError(f"{lines[problem[0]].where}: {problem[1]}")
    return Rated(
        np.array(list(movies), np.int64),
        np.array([line.stars for line in lines], np.float32),
        seconds,
    )


def _lines(path: Path) -> tuple[str, list[_Line]]:
    """The column that names movies, ``movieId`` or ``title``, and the lines."""
    header = _header(path)
    if not {"movieId", "title"} & set(header):
        raise DatasetError(
            f"{path}, line 1: neither movieId nor title is among the columns "
            f"{shortened(', '.join(header))}; "
            "one of them must name the movies"
        )
    key = "movieId" if "movieId" in header else "title"
    names = [key, "rating", *(["timestamp"] if "timestamp" in header else [])]
    lines = []
    for number, (named, rating, *time) in read_records(path, _FORM, names):
        where = f"{path}, line {number}"
        seconds = parse_int(time[0], where, "timestamp") if time else None
        lines.append(_Line(where, number, named, _stars(rating, where), seconds))
    if not lines:
        raise DatasetError(f"{path} holds no rating; expected at least one line of data")
    return key, lines


@dataclass(frozen=True)
class Pairs:
    """Users and movies whose ratings are wanted."""

    table: pa.Table
    """The columns of the file that are used."""
    users: Integers
    """``[N]`` numbers of users."""
    movies: Integers
    """``[N]`` numbers of movies."""


def read_pairs(path: Path, recommender: Recommender) -> Pairs:
    """Read ``userId``, ``movieId`` and, if there is one, ``timestamp``.

    Ids are whole numbers or, if those of the training data are, texts; the columns ``user`` and
    ``movie`` have their numbers.

    Raises:
        DatasetError: naming the line, if the file, a column or a value is missing or wrong, or a
            movie is unknown.
    """
    names = ["userId", "movieId", *(["timestamp"] if "timestamp" in _header(path) else [])]
    types = dict.fromkeys(names, pa.int64())
    if recommender.user_texts is not None:
        types["userId"] = pa.string()
    if recommender.movie_texts is not None:
        types["movieId"] = pa.string()
    pairs = read_columns(path, _FORM, types)
    preprocessor = recommender.checkpoint.preprocessor
    if "timestamp" in pairs.column_names:
        times = pairs["timestamp"].to_numpy()
        problem = times_problem(times, preprocessor.decay_reference) if len(times) else None
        if problem is not None:
            raise DatasetError(f"{path}, line {line_of(path, _FORM, problem[0])}: {problem[1]}")
    users = _numbers(pairs["userId"], recommender.user_texts)
    movies = _numbers(pairs["movieId"], recommender.movie_texts)
    absent = np.flatnonzero(recommender.checkpoint.preprocessor.movies.index_of(movies) < 0)
    if len(absent):
        row = int(absent[0])
        found = pairs["movieId"][row]
        raise DatasetError(
            f"{path}, line {line_of(path, _FORM, row)}: movie {found} is not in the model's "
            f"catalogue of {len(recommender.checkpoint.preprocessor.movies):,} movies; "
            f"{len(absent):,} of {len(pairs):,} rows have such a movie. Correct or remove them."
        )
    return Pairs(pairs, users, movies)


def _numbers(ids: pa.ChunkedArray, texts: TextIds | None) -> Integers:
    if texts is None:
        return ids.to_numpy()
    found = texts.numbers_of(ids.to_pylist(), unknown=UNKNOWN_USER)
    return np.asarray(found, np.int64)


def _header(path: Path) -> list[str]:
    if not path.is_file():
        raise DatasetError(f"there is no file {path}")
    return read_header(path, _FORM)


def _movie(recommender: Recommender, key: str, text: str, where: str) -> int:
    try:
        if key == "title":
            movie = int(recommender.find(text))
            _note_other_title(where, text, recommender.title(movie))
            return movie
        if recommender.movie_texts is not None:
            return int(np.asarray(recommender.movie_texts.numbers_of(text)))
        movie = parse_int(text, where, key)
        recommender.title(movie)
    except UnknownIdError as error:
        known = f"movie {text} is not in the model's catalogue" if key == "movieId" else str(error)
        raise DatasetError(f"{where}: {known}") from error
    return movie


def _note_other_title(where: str, found: str, title: str) -> None:
    """Say which movie a title means that is not its title."""
    if plain(display_title(found)) not in (plain(title), plain(without_year(title))):
        logger.info(f"note: {where}: {quoted(found)} is taken to mean {title}")


def _stars(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DatasetError(
            f"{where}: rating is {quoted(text)}, expected a number of stars"
        ) from None
