"""Read and check the file of movies of a data set in one of MovieLens' layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from ingest.errors import DatasetError
from ingest.sources.genres import Notation, split_genres
from ingest.sources.parsing import (
    WHOLE_NUMBER,
    Format,
    Problems,
    is_int64,
    quoted,
    read_records,
    read_text,
)
from ingest.sources.reading import Reading, double_colon_lines
from ingest.sources.tables import movies_table
from ingest.sources.years import date_year, title_year

_GENRES_100K: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip


def read_movies(reading: Reading, ratings: pa.Table) -> pa.Table:
    """MOVIES, with a placeholder for each rated movie that the file does not name."""
    movies = _read_movies(reading)
    rated = np.unique(ratings["movie_id"].to_numpy())
    unnamed = np.setdiff1d(rated, [movie.movie_id for movie in movies]).tolist()
    if unnamed:
        movies += [_Movie(movie_id, f"(movie {movie_id})", None, ()) for movie_id in unnamed]
        reading.notice(
            f"{len(unnamed):,} rated movies are not in {reading.layout.movies} (the first: "
            f"{unnamed[0]}); they are kept without title and genres."
        )
    return movies_table(
        [movie.movie_id for movie in movies],
        [movie.title for movie in movies],
        [movie.year for movie in movies],
        [movie.genres for movie in movies],
    )


@dataclass(frozen=True, slots=True)
class _Movie:
    movie_id: int
    title: str
    year: int | None
    genres: tuple[str, ...]


def _read_movies(reading: Reading) -> list[_Movie]:
    """The movie file, each movie once.

    Raises:
        DatasetError: if it is empty, malformed, or names a movie twice.
    """
    layout = reading.layout
    file = reading.folder / layout.movies
    problems, seen = Problems(file), dict[int, int]()
    movies, notations = [], Counter[Notation]()
    for line, raw in _RAW_MOVIES[layout.name](file, problems):
        movie_id = _movie_id(raw.movie_id, line, seen, problems)
        if movie_id is None:
            continue
        genres, notation = split_genres(raw.genres)
        notations[notation] += 1
        title = raw.title.strip()
        movies.append(_Movie(movie_id, title, title_year(title) or date_year(raw.released), genres))
    problems.refuse("Correct or remove each.")
    if not movies:
        raise DatasetError(f"{file} holds no movie; expected at least one line of data")
    reading.notice_encoding(file)
    reading.notice_open_end(layout.movies)
    if notations["other"]:
        reading.notice(
            f"{layout.movies}: the genres of {notations['other']:,} movies are not separated by |; "
            "commas, semicolons and slashes were taken as separators."
        )
    if notations["unreadable"]:
        reading.notice(
            f"{layout.movies}: the genres of {notations['unreadable']:,} movies are in no notation "
            "that can be read; they count as unknown."
        )
    untitled = sum(not movie.title for movie in movies)
    if untitled:
        reading.notice(f"{layout.movies}: {untitled:,} movies have no title.")
    return movies


def _movie_id(text: str, line: int, seen: dict[int, int], problems: Problems) -> int | None:
    """The id in a line; None if it is none or a repetition, which is noted."""
    if not is_int64(text):
        problems.add(line, f"movieId is {quoted(text)}, expected {WHOLE_NUMBER}")
        return None
    movie_id = int(text)
    if movie_id in seen:
        problems.add(
            line, f"movie {movie_id} appears a second time (first on line {seen[movie_id]})"
        )
        return None
    seen[movie_id] = line
    return movie_id


@dataclass(frozen=True, slots=True)
class _RawMovie:
    """The texts of a line."""

    movie_id: str
    title: str
    genres: str
    """In the releases' notation or another one."""
    released: str = ""
    """Date of the release, as ``01-Jan-1995``."""


def _movies_csv(file: Path, problems: Problems) -> Iterator[tuple[int, _RawMovie]]:
    names = ("movieId", "title", "genres")
    for line, fields in read_records(file, Format(), names, problems):
        yield line, _RawMovie(*fields)


def _movies_dat(file: Path, problems: Problems) -> Iterator[tuple[int, _RawMovie]]:
    for line, fields in double_colon_lines(file, 3, "movieId::title::genres", problems):
        yield line, _RawMovie(*fields)


def _movies_100k(file: Path, problems: Problems) -> Iterator[tuple[int, _RawMovie]]:
    width = 5 + len(_GENRES_100K)
    for line, text in enumerate(read_text(file).split("\n"), 1):
        fields = text.split("|")
        if not text.strip():
            continue
        if len(fields) != width:
            problems.add(
                line,
                f"{len(fields)} fields, expected {width} (movie id, title, release date, video "
                "release date, IMDb URL, 19 genre flags, separated by |)",
            )
            continue
        flags = zip(_GENRES_100K, fields[5:], strict=True)
        genres = "|".join(genre for genre, flag in flags if flag.strip() == "1")
        yield line, _RawMovie(fields[0], fields[1], genres, released=fields[2])


_RAW_MOVIES: Final = {"csv": _movies_csv, "double-colon": _movies_dat, "tabs": _movies_100k}
