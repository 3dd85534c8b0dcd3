"""Read the files of links and tags, which a data set may lack. What is wrong in them is left out,
with a notice: models can do without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from foundation.schemas import TAGS
from ingest.errors import DatasetError
from ingest.sources.parsing import (
    Format,
    Problems,
    is_int64,
    quoted,
    read_columns,
    read_records,
)
from ingest.sources.reading import Reading, double_colon_lines
from ingest.sources.tables import links_table, no_tags

_CSV: Final = Format()
_TAG_TYPES: Final = {
    "userId": pa.int64(),
    "movieId": pa.int64(),
    "tag": pa.string(),
    "timestamp": pa.int64(),
}
_MAX_IMDB_DIGITS: Final = 12

Lines = Iterator[tuple[int, list[str]]]


def read_links(movie_ids: list[int], reading: Reading) -> pa.Table:
    """LINKS of these movies; null where the file has no id."""
    file = reading.folder / "links.csv"
    problems = Problems(file)
    found: dict[int, tuple[str | None, int | None]] = {}
    lines = read_records(file, _CSV, ("movieId", "imdbId", "tmdbId"), problems)
    for line, (movie, imdb, tmdb) in _as_far_as_readable(file, lines, reading):
        if not is_int64(movie):
            problems.add(line, f"movieId is {quoted(movie)}")
        elif int(movie) in found:
            problems.add(line, f"movie {int(movie)} appears a second time")
        else:
            found[int(movie)] = (_imdb_id(imdb, line, problems), _tmdb_id(tmdb, line, problems))
    _notice_left_out(problems, file, reading)
    if file.is_file():
        reading.notice_open_end(file.name)
    imdb_ids, tmdb_ids = zip(*(found.get(movie, (None, None)) for movie in movie_ids), strict=True)
    return links_table(movie_ids, imdb_ids, tmdb_ids)


def _imdb_id(text: str, line: int, problems: Problems) -> str | None:
    digits = text.strip().removeprefix("tt").removesuffix(".0")
    if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_IMDB_DIGITS:
        return f"tt{digits:0>7}" if int(digits) else None
    if digits:
        problems.add(line, f"imdbId is {quoted(text)}, expected digits such as 0114709")
    return None


def _tmdb_id(text: str, line: int, problems: Problems) -> int | None:
    # pandas writes whole numbers in a column with gaps as 862.0.
    digits = text.strip().removesuffix(".0")
    if is_int64(digits) and int(digits) >= 0:
        return int(digits) or None
    if digits:
        problems.add(line, f"tmdbId is {quoted(text)}, expected a whole number above 0")
    return None


def read_tags(reading: Reading) -> pa.Table:
    """TAGS; an empty table if there is no file of tags."""
    csv, dat = reading.folder / "tags.csv", reading.folder / "tags.dat"
    if reading.layout.name == "csv" and csv.is_file():
        reading.notice_open_end(csv.name)
        try:
            found = read_columns(csv, _CSV, _TAG_TYPES, look_closely=False)
            _notice_line_breaks(found["tag"], reading)
            return pa.table(found.columns, schema=TAGS)
        except DatasetError:  # line by line, which takes longer
            problems = Problems(csv)
            return _tags(
                csv, read_records(csv, _CSV, list(_TAG_TYPES), problems), problems, reading
            )
    if reading.layout.name == "double-colon" and dat.is_file():
        problems = Problems(dat)
        lines = double_colon_lines(dat, 4, "::".join(_TAG_TYPES), problems)
        return _tags(dat, lines, problems, reading)
    return no_tags()


def _notice_line_breaks(tags: pa.ChunkedArray, reading: Reading) -> None:
    """Add a notice about tags over several lines, which a quote that is not closed causes."""
    broken = pc.sum(pc.match_substring(tags, "\n")).as_py()
    if broken:
        reading.notice(f"tags.csv: {broken:,} tags hold line breaks; is a quote not closed?")


def _tags(file: Path, lines: Lines, problems: Problems, reading: Reading) -> pa.Table:
    rows: list[tuple[int, int, str, int]] = []
    for line, (user, movie, tag, time) in _as_far_as_readable(file, lines, reading):
        numbers = {"userId": user, "movieId": movie, "timestamp": time}
        wrong = [name for name, text in numbers.items() if not is_int64(text)]
        if wrong:
            problems.add(line, f"{wrong[0]} is {quoted(numbers[wrong[0]])}")
        else:
            rows.append((int(user), int(movie), tag, int(time)))
    _notice_left_out(problems, file, reading)
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    arrays = [pa.array(c, f.type) for c, f in zip(columns, TAGS, strict=True)]
    return pa.table(arrays, schema=TAGS)


def _as_far_as_readable(file: Path, lines: Lines, reading: Reading) -> Lines:
    """The lines of a file until one cannot be read; none if there is no file."""
    if not file.is_file():
        return
    try:
        yield from lines
    except DatasetError as error:
        reading.notice(f"{file.name} is left out, or the rest of it: {error}")


def _notice_left_out(problems: Problems, file: Path, reading: Reading) -> None:
    if problems.count:
        reading.notice(
            f"{file.name}: {problems.count:,} values or lines are left out, the first: "
            f"{problems.first}."
        )
