"""Read a table from a CSV file with any separator, compressed or not, or from a Parquet file."""

from __future__ import annotations

import contextlib
import csv
import gzip
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from foundation.errors import shortened
from ingest.errors import DatasetError
from ingest.sources.encoding import UTF_8, WESTERN, encoding_of, name_of
from ingest.sources.parsing import Format, Problems, lines_of, read_columns, read_header

SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SUFFIXES: Final = (".csv", ".tsv", ".txt", ".data", ".parquet")
"""Endings of files with tables; text files may end in one of ``COMPRESSIONS`` as well."""
COMPRESSIONS: Final = (".gz", ".zst", ".bz2")
_KINDS: Final = {
    b"PAR1": "parquet",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
}
_BLOCK: Final = 1 << 22
_LONGEST_LINE: Final = 100_000
"""Characters; Python's reader of CSV refuses fields that are somewhat longer."""
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def is_table(path: Path) -> bool:
    """Whether a file has the name of a table."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes = suffixes[:-1]
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def stem(path: Path) -> str:
    """The name of a file of a table without its endings."""
    name = path.name
    for suffix in reversed(path.suffixes):
        if suffix.lower() not in (*SUFFIXES, *COMPRESSIONS):
            break
        name = name.removesuffix(suffix)
    return name


@dataclass(frozen=True)
class TableFile:
    """A file with a table, whose columns can be read."""

    path: Path
    """The file that the user named."""
    header: tuple[str, ...]
    """Names of its columns; of a file without a header line ``column 1`` and so on."""
    has_header: bool
    form: Format | None
    """The layout of a text file; None for Parquet."""
    text: Path
    """The text file, uncompressed."""
    encoding: str = UTF_8
    """Of a text file."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know about the file."""
        if self.encoding != WESTERN:
            return ()
        return (
            f"{self.path.name}: read as {name_of(WESTERN)}, as it is not UTF-8. If texts are "
            "wrong, save the file as UTF-8.",
        )

    @property
    def layout(self) -> str:
        """How it is laid out, for messages."""
        if self.form is None:
            return "Parquet"
        heading = "" if self.has_header else ", without a header line"
        return f"separated by {SEPARATORS[self.form.delimiter]}{heading}"

    def read(self, columns: Sequence[str]) -> list[pa.ChunkedArray]:
        """The columns, in this order; those of text files as text.

        Raises:
            DatasetError: if the file cannot be read or lines have another number of fields.
        """
        if self.form is None:
            try:
                table = pq.read_table(self.path, columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                raise DatasetError(f"cannot read {self.path}: {shortened(str(error))}") from error
            return [_flat(self.path, name, table[name]) for name in columns]
        try:
            table = read_columns(self.text, self.form, dict.fromkeys(columns, pa.string()))
        except DatasetError as error:  # a name that the user knows
            raise DatasetError(str(error).replace(str(self.text), str(self.path))) from error
        return [table[name] for name in columns]

    @property
    def unit(self) -> str:
        """What the numbers of rows count: lines of a text file, or rows."""
        return "row" if self.form is None else "line"

    def numbers(self, rows: Sequence[int]) -> dict[int, int]:
        """The number, from 1, of each of some data rows, from 0."""
        if self.form is None:
            return {row: row + 1 for row in rows}
        return lines_of(self.text, self.form, rows)

    def refuse(self, wrong: Sequence[tuple[int, str]], count: int, advice: str) -> None:
        """Report wrong rows by their lines; rows of Parquet files are counted from 1.

        Args:
            wrong: rows, from 0, and what is wrong with each; the first of them.
            count: of all.
            advice: what to do.

        Raises:
            DatasetError: if there are any.
        """
        if not count:
            return
        problems = Problems(self.path, self.unit)
        numbers = self.numbers([row for row, _ in wrong])
        problems.add_all([(numbers[row], text) for row, text in wrong], count)
        problems.refuse(advice)


@contextlib.contextmanager
def opened(path: Path, is_header: Callable[[Sequence[str]], bool]) -> Iterator[TableFile]:
    """The table in a file; a compressed one is unpacked into a temporary folder meanwhile.

    Args:
        path: the file.
        is_header: whether fields of the first line are names of columns for certain; otherwise
            they are data if one of them is a number or a date.

    Raises:
        DatasetError: if it cannot be read, is empty, or its separator cannot be recognised.
    """
    if not path.is_file():
        raise DatasetError(f"there is no file {path}. Correct the path.")
    kind = _kind(path)
    if kind == "parquet":
        yield TableFile(path, _parquet_header(path), True, None, path)
        return
    if kind == "zip":
        raise DatasetError(
            f"{path} is a zip archive or an Excel workbook; expected a CSV or Parquet file. Unpack "
            "it, or save the sheet as CSV."
        )
    with tempfile.TemporaryDirectory(prefix="ratings-") as folder:
        text = path
        if kind is not None:
            text = Path(folder) / "table"
            _unpack(path, kind, text)
        try:
            file = _described(path, text, is_header)
        except DatasetError as error:
            raise DatasetError(str(error).replace(str(text), str(path))) from error
        yield file


def _parquet_header(path: Path) -> tuple[str, ...]:
    try:
        return tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"cannot read {path}: {shortened(str(error))}") from error


def _kind(path: Path) -> str | None:
    """What a file is by its first bytes, whatever its name; None for text."""
    try:
        with path.open("rb") as stream:
            first = stream.read(4)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    return next((kind for begins, kind in _KINDS.items() if first.startswith(begins)), None)


def _flat(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without a dictionary, bytes as text.

    Raises:
        DatasetError: if it has another type than numbers, texts and times, or bytes are no UTF-8.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    nested = pa.types.is_nested(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind)
    if nested or pa.types.is_null(kind):
        raise DatasetError(
            f"{path}: the column {name} has the type {shortened(str(kind))}; expected numbers, "
            "texts, dates or timestamps"
        )
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if is_bytes or pa.types.is_fixed_size_binary(kind) or "view" in str(kind):
        try:
            return column.cast(pa.string())
        except pa.ArrowException as error:
            raise DatasetError(
                f"{path}: the column {name} has bytes that are not UTF-8; expected texts"
            ) from error
    return column


def _unpack(path: Path, kind: str, target: Path) -> None:
    try:
        with _uncompressed(path, kind) as source, target.open("wb") as out:
            while block := source.read(_BLOCK):
                out.write(block)
    except (OSError, EOFError, pa.ArrowException, zlib.error) as error:
        raise DatasetError(
            f"cannot unpack {path}: {shortened(str(error))}. It may be cut or damaged: copy it "
            "again."
        ) from error


def _uncompressed(path: Path, kind: str) -> IO[bytes] | pa.NativeFile:
    if kind == "gzip":
        return gzip.open(path, "rb")  # Arrow stops silently where a file is cut
    return pa.CompressedInputStream(pa.OSFile(str(path)), kind)


def _described(path: Path, text: Path, is_header: Callable[[Sequence[str]], bool]) -> TableFile:
    encoding = encoding_of(text)
    first = _first_line(text, encoding)
    separator = _separator(first, path)
    fields = _fields(first, separator)
    if not is_header(fields) and any(map(_is_value, fields)):
        columns = tuple(f"column {position}" for position in range(1, len(fields) + 1))
        form = Format(separator, columns=columns)
        return TableFile(path, columns, False, form, text, encoding)
    form = Format(separator)
    return TableFile(path, tuple(read_header(text, form)), True, form, text, encoding)


def _first_line(text: Path, encoding: str) -> str:
    """
    Raises:
        DatasetError: if there is none, or a very long one.
    """
    try:
        with text.open(encoding=encoding) as stream:
            while line := stream.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE:
                    raise DatasetError(
                        f"{text}, line 1 has more than {_LONGEST_LINE:,} characters; expected the "
                        "names of columns"
                    )
                if line.strip():
                    return line.rstrip("\r\n")
    except OSError as error:
        raise DatasetError(f"cannot read {text}: {error.strerror}") from error
    raise DatasetError(f"{text} is empty; expected a header line and data below it")


def _separator(line: str, path: Path) -> str:
    """The separator that divides the first line into the most fields."""
    fields = {mark: len(_fields(line, mark)) for mark in SEPARATORS}
    best = max(fields, key=lambda mark: fields[mark])
    if fields[best] < 2:
        raise DatasetError(
            f"{path}, line 1: found {shortened(repr(line))}, in which nothing separates columns; "
            f"expected at least two columns, separated by {', '.join(SEPARATORS.values())}"
        )
    return best


def _fields(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator))


def _is_value(text: str) -> bool:
    """Whether a text is a number or a date, as data are and names are not."""
    if _DATE.match(text.strip()):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True
