"""Read the files of every MovieLens layout into the same four tables, and validate them.

Sources: the README of each release at https://files.grouplens.org/datasets/movielens/.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from foundation.schemas import TAGS
from ingest.errors import DatasetError
from ingest.releases import Layout
from ingest.sources.parsing import Format, line_of, parse_int, read_columns, read_records, read_text
from ingest.sources.tables import (
    Tables,
    first_repeated_pair,
    links_table,
    movies_table,
    no_tags,
    ratings_table,
)

RATINGS_CSV: Final = Format()
# One colon as the delimiter leaves an empty column between each two: "1::122::5::838985046".
RATINGS_DAT: Final = Format(
    ":", columns=("userId", "_1", "movieId", "_2", "rating", "_3", "timestamp"), quoted=False
)
RATINGS_TABS: Final = Format(
    "\t", columns=("userId", "movieId", "rating", "timestamp"), quoted=False
)
TEXT_CSV: Final = Format(multiline=True)

_RATING_TYPES: Final = {
    "userId": pa.int64(),
    "movieId": pa.int64(),
    "rating": pa.float32(),
    "timestamp": pa.int64(),
}
_TAG_TYPES: Final = {
    "userId": pa.int64(),
    "movieId": pa.int64(),
    "tag": pa.string(),
    "timestamp": pa.int64(),
}
_YEAR: Final = re.compile(r"\((\d{4})\)$")
_NOT_GENRES: Final = frozenset({"", "(no genres listed)", "unknown"})
_GENRES_100K: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip


def read(folder: Path, layout: Layout) -> Tables:
    """Read and validate the data set in ``folder``.

    Ratings of movies that the movie file does not name are kept: such movies are added with a
    placeholder title and without genres, and a notice says how many.

    Raises:
        DatasetError: naming the file, the line, what was found and what was expected.
    """
    ratings_form = _ratings_format(layout)
    ratings_file = folder / layout.ratings
    ratings = read_columns(ratings_file, ratings_form, _RATING_TYPES)
    _check_ratings(ratings, ratings_file, ratings_form, layout)
    movies, notices = _movies_table(folder, layout, ratings)
    return Tables(
        ratings=ratings_table(*(ratings[name] for name in _RATING_TYPES)),
        movies=movies,
        links=_links(movies["movie_id"].to_pylist(), folder / "links.csv"),
        tags=_read_tags(folder, layout),
        notices=notices,
    )


def title_year(title: str) -> int | None:
    """The year in the brackets that end a title: 1995 for ``Toy Story (1995)``."""
    match = _YEAR.search(title.rstrip())
    return int(match.group(1)) if match else None


# -- ratings ---------------------------------------------------------------------------------------


def _ratings_format(layout: Layout) -> Format:
    return {"csv": RATINGS_CSV, "double-colon": RATINGS_DAT, "tabs": RATINGS_TABS}[layout.name]


def _check_ratings(ratings: pa.Table, file: Path, form: Format, layout: Layout) -> None:
    """Refuse an empty table, values out of range and repeated pairs.

    Raises:
        DatasetError: naming the line.
    """
    if ratings.num_rows == 0:
        raise DatasetError(f"{file} holds no rating; expected at least one line of data")
    stars = ratings["rating"].to_numpy()
    # Every comparison with NaN is false, so this refuses NaN as well.
    wrong = ~((stars >= layout.lowest) & (stars <= layout.highest))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DatasetError(
            f"{file}, line {line_of(file, form, row)}: rating is {stars[row]:g}, expected "
            f"{layout.lowest:g} to {layout.highest:g}. Correct the line, or convert the ratings to "
            "that scale."
        )
    times = ratings["timestamp"].to_numpy()
    if times.min() < 0:
        row = int(np.argmax(times < 0))
        raise DatasetError(
            f"{file}, line {line_of(file, form, row)}: timestamp is {times[row]}, expected seconds "
            "since 1970-01-01 (0 or more)"
        )
    pair = first_repeated_pair(ratings["userId"].to_numpy(), ratings["movieId"].to_numpy())
    if pair is not None:
        first, second = pair
        user, movie = ratings["userId"][first].as_py(), ratings["movieId"][first].as_py()
        raise DatasetError(
            f"{file}, line {line_of(file, form, second)}: user {user} rates movie {movie} a second "
            f"time (first on line {line_of(file, form, first)}). Keep one of the two lines."
        )


# -- movies ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Movie:
    movie_id: int
    title: str
    genres: tuple[str, ...]


def _read_movies(folder: Path, layout: Layout) -> list[_Movie]:
    """The movie file, each movie once.

    Raises:
        DatasetError: if it is empty, malformed, or names a movie twice.
    """
    file = folder / layout.movies
    readers = {"csv": _movies_csv, "double-colon": _movies_dat, "tabs": _movies_100k}
    seen: dict[int, int] = {}
    movies = []
    for line, movie in readers[layout.name](file, layout.encoding):
        _refuse_repetition(seen, file, line, movie.movie_id)
        movies.append(movie)
    if not movies:
        raise DatasetError(f"{file} holds no movie; expected at least one line of data")
    return movies


def _refuse_repetition(seen: dict[int, int], file: Path, line: int, movie_id: int) -> None:
    if movie_id in seen:
        raise DatasetError(
            f"{file}, line {line}: movie {movie_id} appears a second time (first on line "
            f"{seen[movie_id]}). Keep one of the two lines."
        )
    seen[movie_id] = line


def _movies_csv(file: Path, encoding: str) -> Iterator[tuple[int, _Movie]]:
    form = Format(encoding=encoding, multiline=True)
    for line, (movie_id, title, genres) in read_records(file, form, ("movieId", "title", "genres")):
        yield line, _movie(movie_id, title, genres.split("|"), f"{file}, line {line}")


def _movies_dat(file: Path, encoding: str) -> Iterator[tuple[int, _Movie]]:
    for line, fields in _double_colon_lines(file, encoding, 3, "movieId::title::genres"):
        movie_id, title, genres = fields
        yield line, _movie(movie_id, title, genres.split("|"), f"{file}, line {line}")


def _movies_100k(file: Path, encoding: str) -> Iterator[tuple[int, _Movie]]:
    width = 5 + len(_GENRES_100K)
    for line, text in enumerate(read_text(file, encoding).splitlines(), 1):
        fields = text.split("|")
        if not text.strip():
            continue
        if len(fields) != width:
            raise DatasetError(
                f"{file}, line {line}: {len(fields)} fields, expected {width} (movie id, title, "
                "release date, video release date, IMDb URL, 19 genre flags, separated by |)"
            )
        flags = zip(_GENRES_100K, fields[5:], strict=True)
        genres = [genre for genre, flag in flags if flag == "1"]
        yield line, _movie(fields[0], fields[1], genres, f"{file}, line {line}")


def _movie(movie_id: str, title: str, genres: list[str], where: str) -> _Movie:
    # Interned, because few names are shared by all movies.
    names = tuple(sys.intern(g.strip()) for g in genres if g.strip() not in _NOT_GENRES)
    return _Movie(parse_int(movie_id, where, "movieId"), title.strip(), names)


def _double_colon_lines(
    file: Path, encoding: str, width: int, layout: str
) -> Iterator[tuple[int, list[str]]]:
    """Fields of a ``::`` file; a ``::`` inside the text in the middle is part of the text."""
    for line, text in enumerate(read_text(file, encoding).split("\n"), 1):
        if not text.strip():
            continue
        fields = text.rstrip("\r").split("::")
        if len(fields) < width:
            raise DatasetError(
                f"{file}, line {line}: {len(fields)} fields, expected {width} ({layout})"
            )
        head = width - 2
        yield line, [*fields[:head], "::".join(fields[head:-1]), fields[-1]]


def _complete_movies(
    movies: list[_Movie], ratings: pa.Table, layout: Layout
) -> tuple[list[_Movie], tuple[str, ...]]:
    """``movies`` plus a placeholder for each rated movie that is not among them."""
    rated = np.unique(ratings["movieId"].to_numpy())
    unnamed = np.setdiff1d(rated, [movie.movie_id for movie in movies]).tolist()
    if not unnamed:
        return movies, ()
    notice = (
        f"{len(unnamed):,} rated movies are not in {layout.movies} (the first: {unnamed[0]}); they "
        "are kept without title and genres."
    )
    return movies + [_Movie(movie_id, f"(movie {movie_id})", ()) for movie_id in unnamed], (notice,)


def _movies_table(
    folder: Path, layout: Layout, ratings: pa.Table
) -> tuple[pa.Table, tuple[str, ...]]:
    movies, notices = _complete_movies(_read_movies(folder, layout), ratings, layout)
    table = movies_table(
        [movie.movie_id for movie in movies],
        [movie.title for movie in movies],
        [title_year(movie.title) for movie in movies],
        [movie.genres for movie in movies],
    )
    return table, notices


# -- links -----------------------------------------------------------------------------------------

_Link = tuple[str | None, int | None]


def _links(movie_ids: list[int], file: Path) -> pa.Table:
    """LINKS of these movies; null where the file has no id."""
    links = _read_links(file)
    imdb_ids, tmdb_ids = zip(*(links.get(movie, (None, None)) for movie in movie_ids), strict=True)
    return links_table(movie_ids, imdb_ids, tmdb_ids)


def _read_links(file: Path) -> dict[int, _Link]:
    """IMDb and TMDb id by movie id; empty if there is no such file.

    Raises:
        DatasetError: if the file is malformed or names a movie twice.
    """
    if not file.is_file():
        return {}
    seen: dict[int, int] = {}
    links: dict[int, _Link] = {}
    for line, (movie, imdb, tmdb) in read_records(file, Format(), ("movieId", "imdbId", "tmdbId")):
        where = f"{file}, line {line}"
        movie_id = parse_int(movie, where, "movieId")
        _refuse_repetition(seen, file, line, movie_id)
        links[movie_id] = (_imdb_id(imdb, where), _tmdb_id(tmdb, where))
    return links


def _imdb_id(text: str, where: str) -> str | None:
    digits = text.strip().removeprefix("tt")
    if not digits:
        return None
    if not (digits.isascii() and digits.isdigit()):
        raise DatasetError(f"{where}: imdbId is {text!r}, expected digits such as 0114709")
    return f"tt{digits:0>7}"


def _tmdb_id(text: str, where: str) -> int | None:
    # pandas writes whole numbers in a column with gaps as 862.0.
    digits = text.strip().removesuffix(".0")
    return parse_int(digits, where, "tmdbId") if digits else None


# -- tags ------------------------------------------------------------------------------------------


def _read_tags(folder: Path, layout: Layout) -> pa.Table:
    """The tags; an empty table if there is no file of tags.

    Raises:
        DatasetError: if the file is malformed.
    """
    if layout.name == "csv" and (folder / "tags.csv").is_file():
        table = read_columns(folder / "tags.csv", TEXT_CSV, _TAG_TYPES)
        return pa.table(table.columns, schema=TAGS)
    if layout.name == "double-colon" and (folder / "tags.dat").is_file():
        return _tags_dat(folder / "tags.dat", layout.encoding)
    return no_tags()


def _tags_dat(file: Path, encoding: str) -> pa.Table:
    rows: list[tuple[int, int, str, int]] = []
    layout = "userId::movieId::tag::timestamp"
    for line, (user, movie, tag, time) in _double_colon_lines(file, encoding, 4, layout):
        where = f"{file}, line {line}"
        ids = parse_int(user, where, "userId"), parse_int(movie, where, "movieId")
        rows.append((*ids, tag, parse_int(time, where, "timestamp")))
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    arrays = [pa.array(c, f.type) for c, f in zip(columns, TAGS, strict=True)]
    return pa.table(arrays, schema=TAGS)
