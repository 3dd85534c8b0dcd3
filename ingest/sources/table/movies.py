"""What a table of movies says of those that are rated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from ingest.config import ColumnsConfig
from ingest.sources.genres import split_genres
from ingest.sources.parsing import MAX_SHOWN
from ingest.sources.table import values
from ingest.sources.table.columns import OF_MOVIES, columns_of
from ingest.sources.table.files import TableFile, opened
from ingest.sources.tables import links_table, movies_table
from ingest.sources.years import plausible_year, title_year

_NO_TITLE: Final = "(movie {})"


def read_movies(
    paths: Sequence[Path], known: values.Ids, config: ColumnsConfig
) -> tuple[pa.Table, pa.Table, tuple[str, ...]]:
    """MOVIES and LINKS of the rated movies, and what the user should know.

    Movies that the table does not name have their ids as titles.

    Raises:
        DatasetError: if the file cannot be read, a column is not there, or a movie is there twice.
    """
    rated = np.unique(known.numbers)
    described = _Described(rated, known)
    notices = tuple(each for path in paths for each in described.read(path, known, config))
    return (
        movies_table(rated, described.titles, described.years, described.genres),
        links_table(rated, described.imdb, described.tmdb),
        notices,
    )


class _Described:
    """Columns of the tables, of the rated movies."""

    def __init__(self, rated: values.Integers, known: values.Ids) -> None:
        self._position = {int(movie): i for i, movie in enumerate(rated)}
        count = len(rated)
        if known.names is None:
            self.titles = [_NO_TITLE.format(movie) for movie in rated.tolist()]
        else:
            self.titles = [known.names[movie - 1] for movie in rated.tolist()]
        self.years: list[int | None] = [None] * count
        self.genres: list[tuple[str, ...]] = [()] * count
        self.imdb: list[str | None] = [None] * count
        self.tmdb: list[int | None] = [None] * count

    def read(self, path: Path, known: values.Ids, config: ColumnsConfig) -> tuple[str, ...]:
        """Fill in what a file says; returns what the user should know."""
        with opened(path) as file:
            columns = columns_of(file, config, OF_MOVIES, ("item",))
            read = dict(zip(columns, file.read(list(columns.values())), strict=True))
            numbers = values.numbered(read.pop("item"), known)
            position = np.array([self._position.get(int(number), -1) for number in numbers])
            wrong = values.WrongRows()
            _note_repeated(position, file, wrong)
            file.refuse(wrong.first, wrong.count, "Keep one of each.")
        rows = np.flatnonzero(position >= 0)
        for meaning, column in read.items():
            texts = column.take(pa.array(rows)).cast(pa.string()).to_pylist()
            for i, text in zip(position[rows].tolist(), texts, strict=True):
                if text is not None and text.strip():
                    self._set(meaning, i, text.strip())
        named = ", ".join(f"{meaning} = {name}" for meaning, name in columns.items())
        notices = [f"{path.name}: columns: {named}."]
        if absent := len(self._position) - len(rows):
            notices.append(
                f"{absent:,} of {len(self._position):,} rated movies are not in {path.name}; they "
                "are kept without title and genres."
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
    first: dict[int, int] = {}
    repeated = []
    for row, i in enumerate(position.tolist()):
        if i >= 0 and first.setdefault(i, row) != row:
            repeated.append((row, first[i]))
    if not repeated:
        return
    wrong.count += len(repeated)
    numbers = file.numbers([row for _, row in repeated[:MAX_SHOWN]])
    wrong.first += [
        (row, f"the movie is there a second time (first on {file.unit} {numbers[earlier]})")
        for row, earlier in repeated[:MAX_SHOWN]
    ]
