"""What a table of movies says of those that are rated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from ingest.config import ColumnsConfig
from ingest.errors import DatasetError
from ingest.sources.genres import split_genres
from ingest.sources.parsing import MAX_SHOWN
from ingest.sources.table import values
from ingest.sources.table.columns import OF_MOVIES, header_test, movie_columns
from ingest.sources.table.files import TableFile, opened
from ingest.sources.tables import links_table, movies_table
from ingest.sources.years import plausible_year, title_year

_NO_TITLE: Final = "(movie {})"
_LACKING: Final = {"title": "title and genres", "imdb": "ids of IMDb and TMDb"}
"""What movies lack that are not in a table with a column."""


def read_movies(
    paths: Sequence[Path], known: values.Ids, item: str, config: ColumnsConfig
) -> tuple[pa.Table, pa.Table, tuple[str, ...]]:
    """MOVIES and LINKS of the rated movies, and what the user should know.

    Movies that no table names have their ids as titles.

    Args:
        paths: tables of movies.
        known: ids of the movies of all ratings.
        item: the column that has them in the table of ratings.
        config: names of columns.

    Raises:
        DatasetError: if a file cannot be read, a column is not there, or a movie is there twice.
    """
    rated = np.unique(known.numbers)
    described = _Described(rated, known)
    notices = [each for path in paths for each in described.read(path, item, config)]
    given = {meaning: getattr(config, meaning) for meaning in OF_MOVIES[1:]}
    absent = [
        meaning for meaning, name in given.items() if name and meaning not in described.meanings
    ]
    if absent:
        names = ", ".join(path.name for path in paths)
        where = f"in none of {names}" if paths else "without a table of movies; set data.movies"
        raise DatasetError(
            f"data.columns.{absent[0]} is {given[absent[0]]!r}, a column that is {where}"
        )
    return (
        movies_table(rated, described.titles, described.years, described.genres),
        links_table(rated, described.imdb, described.tmdb),
        tuple(notices),
    )


class _Described:
    """Columns of the tables, of the rated movies."""

    def __init__(self, rated: values.Integers, known: values.Ids) -> None:
        self._rated, self._known = rated, known
        count = len(rated)
        self.meanings: set[str] = set()
        """Meanings of the columns that were found."""
        if known.names is None:
            self.titles = [_NO_TITLE.format(movie) for movie in rated.tolist()]
        else:
            self.titles = [known.names[movie - 1] for movie in rated.tolist()]
        self.years: list[int | None] = [None] * count
        self.genres: list[tuple[str, ...]] = [()] * count
        self.imdb: list[str | None] = [None] * count
        self.tmdb: list[int | None] = [None] * count

    def read(self, path: Path, item: str, config: ColumnsConfig) -> tuple[str, ...]:
        """Fill in what a file says; returns what the user should know."""
        with opened(path, header_test(config)) as file:
            columns = movie_columns(file, config, item)
            read = dict(zip(columns.names, file.read(list(columns.names.values())), strict=True))
            position = values.positions(read.pop("item"), self._known, self._rated)
            wrong = values.WrongRows(len(position))
            _note_repeated(position, file, wrong)
            wrong.refuse(file)
            notices = [*file.notices, f"{path.name}: {columns.shown}."]
        self.meanings |= set(read)
        rows = np.flatnonzero(position >= 0)
        for meaning, column in read.items():
            texts = column.take(pa.array(rows)).cast(pa.string()).to_pylist()
            for i, text in zip(position[rows].tolist(), texts, strict=True):
                if text is not None and text.strip():
                    self._set(meaning, i, text.strip())
        if absent := len(self._rated) - len(rows):
            without = " and ".join(_LACKING[each] for each in ("title", "imdb") if each in read)
            notices.append(
                f"{absent:,} of {len(self._rated):,} rated movies are not in {path.name}"
                + (f"; they are kept without {without}." if without else ".")
            )
        return tuple(notices)

    def _set(self, meaning: str, i: int, text: str) -> None:
        if meaning == "title":
            self.titles[i] = text
            self.years[i] = self.years[i] or title_year(text)
        elif meaning == "genres":
            self.genres[i], _ = split_genres(text)
        elif meaning == "year":
            self.years[i] = plausible_year(text) or self.years[i]
        elif meaning == "imdb":
            self.imdb[i] = _imdb_id(text)
        elif meaning == "tmdb":
            self.tmdb[i] = _tmdb_id(text)


def _imdb_id(text: str) -> str | None:
    found = re.fullmatch(r"(?:tt)?(\d{1,10})(?:\.0)?", text)
    return f"tt{int(found[1]):07d}" if found and int(found[1]) else None


def _tmdb_id(text: str) -> int | None:
    found = re.fullmatch(r"(\d{1,10})(?:\.0)?", text)
    return int(found[1]) or None if found else None


def _note_repeated(position: values.Integers, file: TableFile, wrong: values.WrongRows) -> None:
    """Note rows of a movie that an earlier row is about; ``position: [N]``, -1 of no movie."""
    rows = np.flatnonzero(position >= 0)
    _, first, which = np.unique(position[rows], return_index=True, return_inverse=True)
    earlier = np.full(len(position), -1)
    earlier[rows] = rows[first[which]]
    is_repeated = (earlier >= 0) & (earlier != np.arange(len(position)))
    if not is_repeated.any():
        return
    numbers = file.numbers(earlier[is_repeated][:MAX_SHOWN].tolist())
    wrong.add(
        is_repeated,
        lambda row: (
            f"the movie is there a second time (first on {file.unit} {numbers[int(earlier[row])]})"
        ),
        "Keep one of each.",
    )
