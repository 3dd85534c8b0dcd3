"""The Netflix Prize's ratings, from a folder on disk.

``movie_titles.csv`` (latin-1, no header) has a line ``id,year,title`` for each movie; the year may
be ``NULL`` and the title may contain commas. The ratings are in ``combined_data_1.txt`` and so on,
or, in the original layout, in ``training_set/mv_0000001.txt`` and so on: a line ``123:`` starts the
ratings of movie 123, each further line is ``customer,rating,YYYY-MM-DD``.

Source: the README of the data set, https://www.kaggle.com/datasets/netflix-inc/netflix-prize-data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from foundation.schemas import RATINGS
from foundation.storage import Storage
from foundation.times import DAY_S, is_film_year, now
from ingest.config import DataConfig
from ingest.errors import DatasetError
from ingest.sources.base import Source, Written, file_version, size_of
from ingest.sources.parsing import parse_int, read_text
from ingest.sources.tables import (
    Tables,
    first_repeated_pair,
    links_table,
    movies_table,
    no_tags,
)

NETFLIX_CITATION: Final = (
    "James Bennett and Stan Lanning. 2007. The Netflix Prize. In Proceedings of KDD Cup and "
    "Workshop 2007, San Jose, California."
)

READER_VERSION: Final = 1
"""Incremented whenever the same files give different tables."""

_BLOCK_BYTES: Final = 4 << 20
"""Bytes of a ratings file that are parsed at a time."""
_ROWS_AT_A_TIME: Final = 1_000_000
"""Smallest number of ratings in a row group of the table, except for the last one."""
_BYTES_PER_RATING: Final = 21
"""What a line such as ``1488844,3,2005-09-06`` takes."""
_SEPARATOR: Final = "\x1f"  # occurs in no line, so that a line is one field
_MOVIE_LINE: Final = r"^(?P<movie>\d{1,9}):$"
_RATING_LINE: Final = r"^(?P<user>\d{1,18}),(?P<rating>[1-5]),(?P<day>\d{4}-\d{2}-\d{2})$"

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NetflixPrizeSource(Source):
    """The Netflix Prize's ratings, 1 to 5 stars; no genres, links or tags."""

    folder: Path

    licence: ClassVar[str] = (
        "The terms of the Netflix Prize's data are in the README file that comes with them: "
        "research use, with the citation below, and no redistribution or commercial use without "
        "Netflix' permission."
    )
    citation: ClassVar[str | None] = NETFLIX_CITATION

    @classmethod
    def open(cls, config: DataConfig, downloads: Path) -> NetflixPrizeSource:
        """The files in ``data.path``.

        Raises:
            DatasetError: if the folder does not hold the files.
        """
        folder = Path(config.path).expanduser()
        rating_files(folder)
        return cls(config.source, folder)

    @classmethod
    def expected_ratings(cls, config: DataConfig) -> int:
        """From the size of the files.

        Raises:
            DatasetError: if the folder does not hold the files.
        """
        files = rating_files(Path(config.path).expanduser())
        return sum(map(size_of, files)) // _BYTES_PER_RATING

    @property
    def version(self) -> dict[str, Any]:
        """A digest of the size and time of the last change of each file that is read.

        Raises:
            DatasetError: if the folder does not hold the files.
        """
        files = [_titles_file(self.folder), *rating_files(self.folder)]
        versions = json.dumps([file_version(file) for file in files])
        return {
            "num_files": len(files),
            "files_sha256": hashlib.sha256(versions.encode()).hexdigest(),
            "reader_version": READER_VERSION,
        }

    def read(self) -> Tables:
        """Read and validate all tables in memory.

        Raises:
            DatasetError: naming the file, the line, what was found and what was expected.
        """
        titles = read_titles(_titles_file(self.folder))
        ratings = RatingReader(rating_files(self.folder))
        table = pa.Table.from_batches(ratings.batches(), schema=RATINGS)
        movies, notices = _movies(titles, ratings.rated)
        return Tables(table, movies, links_table(movies["movie_id"]), no_tags(), notices)

    def write(self, target: Storage) -> Written:
        """Read the ratings block by block and write them in row groups of about a million.

        Raises:
            DatasetError: as ``read``.
        """
        titles = read_titles(_titles_file(self.folder))
        ratings = RatingReader(rating_files(self.folder))
        with (
            (target / "ratings.parquet").writing() as stream,
            pq.ParquetWriter(stream, RATINGS, compression="zstd") as writer,
        ):
            for table in _in_row_groups(ratings.batches()):
                writer.write_table(table, row_group_size=table.num_rows)
        movies, notices = _movies(titles, ratings.rated)
        (target / "movies.parquet").write_table(movies)
        (target / "links.parquet").write_table(links_table(movies["movie_id"]))
        (target / "tags.parquet").write_table(no_tags())
        return Written(notices=notices)


def _in_row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches, joined until they have ``_ROWS_AT_A_TIME`` rows."""
    waiting: list[pa.RecordBatch] = []
    num_rows = 0
    for batch in batches:
        waiting.append(batch)
        num_rows += batch.num_rows
        if num_rows >= _ROWS_AT_A_TIME:
            yield pa.Table.from_batches(waiting)
            waiting, num_rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


# -- files -----------------------------------------------------------------------------------------


def rating_files(folder: Path) -> list[Path]:
    """The files of ratings in ``folder``, in order of their number.

    The combined files must be numbered from 1 without a gap; the original ones need not.

    Raises:
        DatasetError: if there are none, or a combined file is missing.
    """
    combined = dict[int, Path]()
    for file in _numbered(folder):
        number = int(file.stem.rpartition("_")[2])
        if number in combined:
            raise DatasetError(
                f"{folder} holds both {combined[number].name} and {file.name}, which have the same "
                "number: remove the one that is not part of the data."
            )
        combined[number] = file
    if combined:
        for number in range(1, max(combined)):
            if number not in combined:
                raise DatasetError(
                    f"{folder / f'combined_data_{number}.txt'} is missing, but there is "
                    f"{combined[max(combined)].name}. Add the file or correct data.path."
                )
        return [combined[number] for number in sorted(combined)]
    original = sorted(folder.glob("training_set/mv_*.txt"))
    if original:
        return original
    present = sorted(p.name for p in folder.iterdir())[:10] if folder.is_dir() else []
    raise DatasetError(
        f"{folder} holds no ratings of the Netflix Prize (found: "
        f"{', '.join(present) or 'nothing'}). Expected movie_titles.csv with "
        "combined_data_1.txt to combined_data_4.txt, or with training_set/mv_0000001.txt and "
        "so on. Correct data.path."
    )


def _numbered(folder: Path) -> Iterator[Path]:
    """Files of the combined layout."""
    for file in sorted(folder.glob("combined_data_*.txt")):
        if re.fullmatch(r"combined_data_\d+", file.stem, re.ASCII):
            yield file


def _titles_file(folder: Path) -> Path:
    """``movie_titles.csv``, or ``movie_titles.txt`` as the original layout names it.

    Raises:
        DatasetError: if there is neither.
    """
    for name in ("movie_titles.csv", "movie_titles.txt"):
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(
        f"{folder / 'movie_titles.csv'} is missing; expected a line id,year,title for each movie. "
        "Add the file or correct data.path."
    )


# -- movies ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Title:
    """A movie's line in ``movie_titles.csv``."""

    title: str
    year: int | None


def read_titles(file: Path) -> dict[int, Title]:
    """Title and year by movie id.

    Raises:
        DatasetError: if a line is malformed or a movie appears twice.
    """
    titles: dict[int, Title] = {}
    for line, text in enumerate(read_text(file).split("\n"), 1):
        if not text.strip():
            continue
        where = f"{file}, line {line}"
        fields = text.rstrip("\r").split(",", 2)
        if len(fields) != 3:
            raise DatasetError(
                f"{where}: {len(fields)} fields, expected 3 (id,year,title). Correct or remove "
                "the line."
            )
        movie_id = parse_int(fields[0], where, "the movie's id")
        if movie_id in titles:
            raise DatasetError(
                f"{where}: movie {movie_id} appears a second time. Keep one of the two lines."
            )
        titles[movie_id] = Title(fields[2].strip(), _year(fields[1], where))
    if not titles:
        raise DatasetError(
            f"{file} holds no movie; expected a line id,year,title for each. Replace the file."
        )
    return titles


def _year(text: str, where: str) -> int | None:
    """The year of release; None for NULL and for years that cannot be one."""
    if text == "NULL":
        return None
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII):
        raise DatasetError(
            f"{where}: the year is {text!r}, expected four digits or NULL. Correct the line."
        )
    return int(text) if is_film_year(int(text)) else None


def _movies(titles: dict[int, Title], rated: set[int]) -> tuple[pa.Table, tuple[str, ...]]:
    """MOVIES with a placeholder for each rated movie without a title, and a notice about these."""
    unnamed = sorted(rated - titles.keys())
    found = titles | {movie: Title(f"(movie {movie})", None) for movie in unnamed}
    table = movies_table(
        list(found), [m.title for m in found.values()], [m.year for m in found.values()]
    )
    if not unnamed:
        return table, ()
    return table, (
        f"{len(unnamed):,} rated movies have no title (the first: {unnamed[0]}); they are kept.",
    )


# -- ratings ---------------------------------------------------------------------------------------


@dataclass
class _Position:
    """Where in a file the next block starts."""

    file: Path
    line: int = 1
    movie: int | None = None
    """The movie whose ratings come next; None before the first ``123:``."""
    users: _Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Customers who rated ``movie`` in earlier blocks."""
    user_lines: _Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Line of each of these ratings."""


class RatingReader:
    """Reads files of ratings block by block, so that memory does not grow with the files."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._row = 0
        self._starts: dict[int, str] = {}
        """File and line where the ratings of each movie start."""
        self.rated: set[int] = set()
        """Movies with a rating; complete after ``batches``."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The ratings, by the schema RATINGS, in the order of the files.

        Raises:
            DatasetError: naming the file, the line, what was found and what was expected.
        """
        for file in self._files:
            position = _Position(file)
            for lines in _blocks(file):
                batch = self._parse(lines, position)
                position.line += len(lines)
                if batch.num_rows:
                    self._row += batch.num_rows
                    self.rated.update(pc.unique(batch["movie_id"]).to_pylist())
                    yield batch
            self._check_end(position)

    def _check_end(self, position: _Position) -> None:
        """Refuse a file that ends before the first rating of a movie, as truncated files may."""
        if position.movie is None:
            raise DatasetError(
                f"{position.file} holds no rating; expected a line such as 123: and lines "
                "customer,rating,YYYY-MM-DD. Copy the file again."
            )
        if not len(position.users):
            raise DatasetError(
                f"{self._starts[position.movie]}: the file ends without a rating of movie "
                f"{position.movie}; expected lines customer,rating,YYYY-MM-DD. If the file is "
                "truncated, copy it again; else remove the line."
            )

    def _parse(self, lines: pa.Array, position: _Position) -> pa.RecordBatch:
        """The ratings in consecutive lines of a file; advances ``position``'s movie."""
        is_movie = pc.ends_with(lines, b":").to_numpy(zero_copy_only=False)
        is_blank = pc.equal(pc.binary_length(lines), 0).to_numpy(zero_copy_only=False)
        starts = np.flatnonzero(is_movie)
        rows = np.flatnonzero(~is_movie & ~is_blank)
        started = self._movies(lines, starts, position)
        section = np.searchsorted(starts, rows) - 1
        if position.movie is None and len(rows) and section[0] < 0:
            number = position.line + int(rows[0])
            raise DatasetError(
                f"{position.file}, line {number}: {_shown(lines, rows[0])} is found before the "
                "first movie; expected a line such as 123: that starts one. Correct the file."
            )
        movie_of_section = np.append(started, position.movie or 0)  # section -1: the earlier movie
        movies = movie_of_section[section]
        users, stars, times = _fields(lines, rows, position)
        _check_repetitions(users, movies, position.line + rows, position)
        _advance(position, users, movies, position.line + rows, started)
        columns = [
            pa.array(np.arange(self._row, self._row + len(rows))),
            pa.array(users),
            pa.array(movies),
            pa.array(stars),
            pa.array(times),
        ]
        return pa.record_batch(columns, schema=RATINGS)

    def _movies(self, lines: pa.Array, starts: _Ints, position: _Position) -> _Ints:
        """The ids in the lines ``starts``, each of which starts a movie."""
        found = pc.extract_regex(lines.take(pa.array(starts)), _MOVIE_LINE)
        if found.null_count:
            _refuse(lines, starts, found, position, "a movie's line such as 123:")
        ids: _Ints = found.field("movie").cast(pa.string()).cast(pa.int64()).to_numpy()
        for line, movie in zip((position.line + starts).tolist(), ids.tolist(), strict=True):
            where = f"{position.file}, line {line}"
            if movie in self._starts:
                raise DatasetError(
                    f"{where}: movie {movie} starts a second time (first in "
                    f"{self._starts[movie]}). Expected all ratings of a movie in one place. Merge "
                    "the two parts."
                )
            self._starts[movie] = where
        return ids


def _blocks(file: Path) -> Iterator[pa.Array]:
    """The lines of a file as binary arrays, about ``_BLOCK_BYTES`` at a time.

    Raises:
        DatasetError: if the file cannot be read.
    """
    try:
        if file.stat().st_size == 0:
            return
        with arrow_csv.open_csv(
            file,
            arrow_csv.ReadOptions(
                column_names=["line"], block_size=_BLOCK_BYTES, use_threads=False
            ),
            arrow_csv.ParseOptions(
                delimiter=_SEPARATOR, quote_char=False, ignore_empty_lines=False
            ),
            arrow_csv.ConvertOptions(column_types={"line": pa.binary()}, null_values=[]),
        ) as reader:
            for batch in reader:
                yield batch.column(0)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"cannot read {file}: {error}") from error


def _fields(
    lines: pa.Array, rows: _Ints, position: _Position
) -> tuple[_Ints, npt.NDArray[np.float32], _Ints]:
    """Customer, stars and seconds since 1970 UTC of the rating lines ``rows``."""
    found = pc.extract_regex(lines.take(pa.array(rows)), _RATING_LINE)
    if found.null_count:
        _refuse(lines, rows, found, position, "customer,rating,YYYY-MM-DD with 1 to 5 stars")
    users, stars = (found.field(name).cast(pa.string()) for name in ("user", "rating"))
    days = found.field("day").cast(pa.string()).dictionary_encode()
    seconds = np.array([_seconds(day) for day in days.dictionary.to_pylist()], np.int64)
    times = seconds[days.indices.to_numpy()]
    wrong = (times < 0) | (times > now() + DAY_S)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DatasetError(
            f"{position.file}, line {position.line + rows[row]}: the date in "
            f"{_shown(lines, rows[row])} is not in the calendar, or is before 1970 or in the "
            "future. Correct or remove the line."
        )
    return (
        users.cast(pa.int64()).to_numpy(),
        stars.cast(pa.float32()).to_numpy(),
        times,
    )


def _seconds(day: str) -> int:
    """Midnight UTC of a date, in seconds since 1970; -1 if there is no such date."""
    try:
        days = date.fromisoformat(day) - date(1970, 1, 1)
    except ValueError:
        return -1
    return days.days * DAY_S


def _check_repetitions(users: _Ints, movies: _Ints, lines: _Ints, position: _Position) -> None:
    """Refuse a customer who rates a movie twice.

    Raises:
        DatasetError: naming both lines.
    """
    if not len(users):
        return
    earlier = np.full(len(position.users), position.movie or 0)
    all_users = np.concatenate([position.users, users])
    pair = first_repeated_pair(all_users, np.concatenate([earlier, movies]))
    if pair is not None:
        all_lines = np.concatenate([position.user_lines, lines])
        raise DatasetError(
            f"{position.file}, line {all_lines[pair[1]]}: customer {all_users[pair[1]]} rates "
            f"the movie a second time (first on line {all_lines[pair[0]]}). Keep one of the two "
            "lines."
        )


def _advance(
    position: _Position, users: _Ints, movies: _Ints, lines: _Ints, started: _Ints
) -> None:
    """Remember the movie whose ratings continue in the next block, and who has rated it."""
    if len(started):
        position.movie = int(started[-1])
        position.users, position.user_lines = np.empty((2, 0), np.int64)
    last = movies == position.movie
    position.users = np.concatenate([position.users, users[last]])
    position.user_lines = np.concatenate([position.user_lines, lines[last]])


def _refuse(
    lines: pa.Array, rows: _Ints, found: pa.Array, position: _Position, expected: str
) -> NoReturn:
    """Refuse the first of ``rows`` that does not match.

    Raises:
        DatasetError: always.
    """
    row = rows[int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))]
    raise DatasetError(
        f"{position.file}, line {position.line + row}: found {_shown(lines, row)}, expected "
        f"{expected}. Correct or remove the line."
    )


def _shown(lines: pa.Array, row: int) -> str:
    text = lines[int(row)].as_py().decode("latin-1")
    return repr(text[:60])
