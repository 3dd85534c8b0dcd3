"""Read delimited text files into typed columns, with messages that name the line of an error.

Files are read by ``pyarrow.csv``. Only if that fails, or a value is refused, the file is read again
line by line to find the number of the line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import csv as arrow_csv

from ingest.errors import DatasetError

_WHOLE: Final = re.compile(r"[+-]?\d+")
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Format:
    """How a file is laid out."""

    delimiter: str = ","
    encoding: str = "utf-8"
    columns: tuple[str, ...] = ()
    """Column names in order, for files without a header line."""
    quoted: bool = True
    multiline: bool = False
    """Whether quoted texts may hold line breaks."""

    @property
    def has_header(self) -> bool:
        """Whether the first line names the columns."""
        return not self.columns


def require_file(path: Path) -> None:
    """Check that a file exists.

    Raises:
        DatasetError: if it does not.
    """
    if not path.is_file():
        siblings = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise DatasetError(
            f"{path} is missing (the folder holds: {', '.join(siblings[:10]) or 'nothing'}). "
            "Add the file, download the data set again, or correct data.path."
        )


def read_text(path: Path, encoding: str) -> str:
    """The text of a file.

    Raises:
        DatasetError: naming the line and byte that is not in ``encoding``.
    """
    require_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not {encoding.upper()}. "
            f"Save the file as {encoding.upper()}."
        ) from error


def read_columns(path: Path, form: Format, types: Mapping[str, pa.DataType]) -> pa.Table:
    """The columns named in ``types``, in that order.

    Raises:
        DatasetError: if the file, a column or a value is missing or a value is of another type.
    """
    require_file(path)
    if form.has_header:
        _require_columns(path, form, list(types))
    try:
        return arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                column_names=form.columns or None, encoding=form.encoding
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=form.delimiter,
                quote_char='"' if form.quoted else False,
                newlines_in_values=form.multiline,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[]
            ),
        )
    except (pa.ArrowInvalid, OSError) as error:
        problem = _first_problem(path, form, types)
        raise DatasetError(problem or f"cannot read {path}: {error}") from error


def read_records(path: Path, form: Format, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and the fields ``names`` of each line, as text; for small files.

    Raises:
        DatasetError: if the file, a column or a field is missing.
    """
    header, lines = _lines(path, form)
    missing = [name for name in names if name not in header]
    if missing:
        raise _missing_columns(path, missing, header)
    positions = [header.index(name) for name in names]
    for line, fields in lines:
        if len(fields) != len(header):
            raise DatasetError(_wrong_width(path, line, fields, header))
        yield line, [fields[position] for position in positions]


def line_of(path: Path, form: Format, row: int) -> int:
    """The line number (from 1) of the ``row``-th data row (from 0)."""
    _, lines = _lines(path, form)
    for position, (line, _) in enumerate(lines):
        if position == row:
            return line
    raise IndexError(f"{path} has no row {row}")


def parse_int(text: str, where: str, what: str) -> int:
    """A whole number that fits into 64 bits.

    Raises:
        DatasetError: naming ``where`` and ``what``, if the text is not one.
    """
    if not _WHOLE.fullmatch(text.strip()) or int(text) not in _INT64:
        raise DatasetError(f"{where}: {what} is {text!r}, expected a whole number (64 bits)")
    return int(text)


def _require_columns(path: Path, form: Format, names: list[str]) -> None:
    with path.open(encoding=form.encoding, errors="replace", newline="") as stream:
        header = _header(stream.readline(), form)
    missing = [name for name in names if name not in header]
    if missing:
        raise _missing_columns(path, missing, header)


def _missing_columns(path: Path, missing: list[str], header: list[str]) -> DatasetError:
    if not any(header):
        return DatasetError(
            f"{path} is empty; expected a header line with {', '.join(missing)} and data below it"
        )
    return DatasetError(
        f"{path}, line 1: the columns {', '.join(missing)} are missing; found "
        f"{', '.join(header)}. Name the columns as MovieLens does."
    )


def _header(line: str, form: Format) -> list[str]:
    line = line.removeprefix("\ufeff").rstrip("\r\n")
    return [name.strip() for name in next(csv.reader([line], delimiter=form.delimiter), [])]


def _lines(path: Path, form: Format) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The column names, and an iterator of line numbers with fields; blank lines are skipped."""
    numbered = _numbered(path, form)
    if not form.has_header:
        return list(form.columns), numbered
    _, header = next(numbered, (0, []))
    return [name.strip() for name in header], numbered


def _numbered(path: Path, form: Format) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank."""
    require_file(path)
    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    reader = None
    try:
        with path.open(encoding=encoding, newline="") as stream:
            reader = (
                csv.reader(stream, delimiter=form.delimiter)
                if form.quoted
                else csv.reader(stream, delimiter=form.delimiter, quoting=csv.QUOTE_NONE)
            )
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
    except UnicodeDecodeError:
        read_text(path, form.encoding)  # raises, with the line
        raise
    except csv.Error as error:
        line = reader.line_num if reader else 1
        raise DatasetError(f"{path}, line {line}: {error}") from error


def _first_problem(path: Path, form: Format, types: Mapping[str, pa.DataType]) -> str | None:
    """A message on the first line that cannot be read, if there is one."""
    header, lines = _lines(path, form)
    checks = [(header.index(name), name, _checker(kind)) for name, kind in types.items()]
    for line, fields in lines:
        if len(fields) != len(header):
            return _wrong_width(path, line, fields, header)
        for position, name, check in checks:
            expected = check(fields[position])
            if expected:
                found = fields[position]
                return (
                    f"{path}, line {line}: {name} is {found!r}, expected {expected}. Correct or "
                    "remove the line."
                )
    return None


def _wrong_width(path: Path, line: int, fields: list[str], header: list[str]) -> str:
    return (
        f"{path}, line {line}: {len(fields)} fields, expected {len(header)} "
        f"({', '.join(filter(None, header))}). Correct or remove the line."
    )


def _checker(kind: pa.DataType) -> Callable[[str], str | None]:
    """A function that returns what was expected if a text cannot be read as ``kind``."""

    def whole(text: str) -> str | None:
        right = _WHOLE.fullmatch(text.strip()) and int(text) in _INT64
        return None if right else "a whole number (64 bits)"

    def number(text: str) -> str | None:
        try:
            float(text)
        except ValueError:
            return "a number"
        return None

    if pa.types.is_integer(kind):
        return whole
    if pa.types.is_floating(kind):
        return number
    return lambda text: None
