"""Read delimited text files into typed columns, with messages that name the line of an error.

Files are read by ``pyarrow.csv``. Only if that fails, or a value is refused, the file is read again
line by line to find the number of the line.
"""

from __future__ import annotations

import csv
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import csv as arrow_csv

from foundation.errors import shortened
from ingest.errors import DatasetError
from ingest.sources.encoding import encoding_of, marked_encoding

_WHOLE: Final = re.compile(r"-?\d+", re.ASCII)
_NUMBER: Final = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf)", re.ASCII | re.IGNORECASE
)
_BLANKS: Final = " \t\r\n"
"""Around a number; Python strips more characters from a text than it ignores in a number."""
_INT64: Final = range(-(2**63), 2**63)
WHOLE_NUMBER: Final = "a whole number (64 bits)"
_ADVICE: Final = "Correct or remove the line."
_SEPARATORS: Final = {"semicolons": ";", "tabs": "\t", "vertical bars": "|", "commas": ","}


MAX_SHOWN: Final = 10
"""Number of wrong lines that a message lists."""
_BLOCK: Final = 1 << 24
_MAX_DIGITS: Final = 40
"""More than any number of 64 bits has, leading zeros included."""
_MAX_QUOTED: Final = 100
"""Characters of a value that a message quotes."""


@dataclass(frozen=True)
class Format:
    """How a file is laid out."""

    delimiter: str = ","
    columns: tuple[str, ...] = ()
    """Column names in order, for files without a header line."""
    quoted: bool = True
    numeric: bool = False
    """Whether only columns with numbers are read: then the encoding hardly matters, and a large
    file need not be searched for it."""

    @property
    def unnamed(self) -> list[str]:
        """Columns that must be empty: those between two delimiters that separate together."""
        return [name for name in self.columns if name.startswith("_")]

    @property
    def has_header(self) -> bool:
        """Whether the first line names the columns."""
        return not self.columns


class Problems:
    """Collects what is wrong with the lines of a file, so that one message says it all."""

    def __init__(self, path: Path, unit: str = "line") -> None:
        """``unit`` is what the numbers count: lines, or rows of a file without lines."""
        self._path, self._unit = path, unit
        self.count = 0
        """How many were noted."""
        self._shown: list[tuple[int, str]] = []

    @property
    def first(self) -> str:
        """The first of them."""
        line, text = self._shown[0]
        return f"{self._unit} {line}: {text}"

    def add(self, line: int, text: str) -> None:
        """Note what is wrong with a line."""
        self.add_all([(line, text)], 1)

    def add_all(self, first: Sequence[tuple[int, str]], count: int) -> None:
        """Note ``count`` wrong lines, of which the first are given with their numbers."""
        self.count += count
        self._shown = sorted([*self._shown, *first])[:MAX_SHOWN]

    def refuse(self, advice: str) -> None:
        """Report what was noted.

        Raises:
            DatasetError: if anything was noted.
        """
        if not self.count:
            return
        if self.count == 1:
            raise DatasetError(f"{self._path}, {self.first}. {advice}")
        listed = "".join(f"\n  {self._unit} {line}: {text}" for line, text in self._shown)
        more = self.count - len(self._shown)
        raise DatasetError(
            f"{self._path}: {self.count:,} {self._unit}s are wrong. {advice}{listed}"
            + (f"\n  and {more:,} more" if more else "")
        )


def quoted(text: str) -> str:
    """A value for a message, shortened if it is long."""
    return repr(text) if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]!r}..."


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


def read_text(path: Path) -> str:
    """The text of a file, in the encoding that its bytes are in.

    Raises:
        DatasetError: naming the line and byte that is in none.
    """
    require_file(path)
    try:
        with path.open(encoding=encoding_of(path)) as stream:  # every line break as \n
            return stream.read()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error


def read_columns(
    path: Path, form: Format, types: Mapping[str, pa.DataType], *, look_closely: bool = True
) -> pa.Table:
    """The columns named in ``types``, in that order.

    A file with quotes is read a second time, line by line, which takes three seconds a million
    lines, unless ``look_closely`` is false: Arrow reads the lines after a quote that is not closed
    as a part of the quoted text.

    Raises:
        DatasetError: if the file, a column or a value is missing or a value is of another type.
    """
    require_file(path)
    names, header_lines = _names(path, form)
    _require(path, form, names, list(types))
    has_quotes = form.quoted and _holds(path, header_lines, b'"')
    # Arrow reads 0x10 as a number, and texts between the colons of 1::2 as nothing.
    is_odd = form.unnamed and not _only_doubled(path, form.delimiter.encode())
    if look_closely and (has_quotes or is_odd or _holds(path, header_lines, b"0x", b"0X")):
        _refuse_wrong_lines(path, form, types)
    try:
        return arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                column_names=names, skip_rows=header_lines, encoding=_arrow_encoding(path, form)
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=form.delimiter,
                quote_char='"' if form.quoted else False,
                newlines_in_values=has_quotes,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[]
            ),
        )
    except (pa.ArrowInvalid, OSError, UnicodeError) as error:
        _refuse_wrong_lines(path, form, types)
        raise DatasetError(f"cannot read {path}: {shortened(str(error))}") from error


def read_header(path: Path, form: Format) -> list[str]:
    """The column names of a file.

    Raises:
        DatasetError: if it cannot be read.
    """
    return _names(path, form)[0]


def _only_doubled(path: Path, delimiter: bytes) -> bool:
    """Whether a delimiter is in a file only twice in a row."""
    single = double = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            block += stream.readline()
            single += block.count(delimiter)
            double += block.count(2 * delimiter)
    return single == 2 * double


def _holds(path: Path, after: int, *texts: bytes) -> bool:
    """Whether the bytes of a file hold one of these, after so many lines."""
    with path.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = 0
            for _ in range(after):
                start = content.find(b"\n", start) + 1
            return any(content.find(text, start) >= 0 for text in texts)


def _arrow_encoding(path: Path, form: Format) -> str:
    # Arrow reads UTF-8 without Python, and skips the mark.
    return (marked_encoding(path) if form.numeric else encoding_of(path)).removesuffix("-sig")


def read_records(
    path: Path, form: Format, names: Sequence[str], problems: Problems | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Line number and the fields ``names`` of each line, as text; for small files.

    Lines with another number of fields are noted in ``problems``.

    Raises:
        DatasetError: if the file or a column is missing, or without ``problems`` for a line with
            another number of fields.
    """
    header, lines = _lines(path, form)
    _require(path, form, header, list(names))
    positions = [header.index(name) for name in names]
    for line, fields in lines:
        if len(fields) == len(header):
            yield line, [fields[position] for position in positions]
        elif problems is None:
            raise DatasetError(f"{path}, line {line}: {_wrong_width(fields, header)}. {_ADVICE}")
        else:
            problems.add(line, _wrong_width(fields, header))


def lines_of(path: Path, form: Format, rows: Sequence[int]) -> dict[int, int]:
    """The line number (from 1) of each of some data rows (from 0)."""
    _, lines = _lines(path, form)
    wanted, last = set(rows), max(rows)
    found = {}
    for position, (line, _) in enumerate(lines):
        if position in wanted:
            found[position] = line
        if position == last:
            return found
    raise IndexError(f"{path} has no row {last}")


def line_of(path: Path, form: Format, row: int) -> int:
    """The line number (from 1) of the ``row``-th data row (from 0)."""
    return lines_of(path, form, [row])[row]


def parse_int(text: str, where: str, what: str) -> int:
    """A whole number that fits into 64 bits.

    Raises:
        DatasetError: naming ``where`` and ``what``, if the text is not one.
    """
    if not is_int64(text):
        raise DatasetError(f"{where}: {what} is {quoted(text)}, expected {WHOLE_NUMBER}")
    return int(text)


def is_int64(text: str) -> bool:
    """Whether a text is a whole number that fits into 64 bits."""
    text = text.strip(_BLANKS)
    # Python refuses to convert thousands of digits, and takes long for fewer.
    return len(text) <= _MAX_DIGITS and bool(_WHOLE.fullmatch(text)) and int(text) in _INT64


def _require(path: Path, form: Format, header: list[str], names: Sequence[str]) -> None:
    """Check that the columns ``names`` are there, each once.

    Raises:
        DatasetError: saying which are not.
    """
    missing = [name for name in names if name not in header]
    if missing and not any(header):
        raise DatasetError(
            f"{path} is empty; expected a header line with {', '.join(missing)} and data below it"
        )
    if missing:
        advice = f"{_other_separator(header, form)}Rename the columns in that line."
        raise DatasetError(
            f"{path}, line 1: the columns {', '.join(missing)} are missing; found "
            f"{shortened(', '.join(header))}. {advice}"
        )
    repeated = [name for name in names if header.count(name) > 1]
    if repeated:
        raise DatasetError(
            f"{path}, line 1: the column {repeated[0]} is there {header.count(repeated[0])} times; "
            "expected it once. Rename or remove the others."
        )


def _other_separator(header: list[str], form: Format) -> str:
    """What to do if the columns seem to have another separator than ``form`` says."""
    if len(header) > 1:
        return ""
    found = [(name, mark) for name, mark in _SEPARATORS.items() if mark in header[0]]
    if not found:
        return ""
    name, mark = found[0]
    return (
        f"The columns seem to be separated by {name} ({mark!r}); expected {form.delimiter!r}: save "
        "the file with that separator. "
    )


def _names(path: Path, form: Format) -> tuple[list[str], int]:
    """The column names, and the number of lines until and with those that name them."""
    if not form.has_header:
        return list(form.columns), 0
    line, header = next(_numbered(path, form), (0, []))
    return [name.strip() for name in header], line


def _lines(path: Path, form: Format) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The column names, and an iterator of line numbers with fields; blank lines are skipped."""
    names, _ = _names(path, form)
    numbered = _numbered(path, form)
    if form.has_header:
        next(numbered, None)
    return names, numbered


def _numbered(path: Path, form: Format) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank."""
    require_file(path)
    line = 0
    try:
        encoding = marked_encoding(path) if form.numeric else encoding_of(path)
        errors = "replace" if form.numeric else "strict"
        with path.open(encoding=encoding, errors=errors, newline="") as stream:
            reader = csv.reader(
                stream,
                delimiter=form.delimiter,
                quoting=csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE,
                strict=True,
            )
            for fields in reader:
                if reader.line_num > line + 1:
                    _refuse_swallowed_lines(path, line + 1, fields, form)
                line = reader.line_num
                if fields:
                    yield line, fields
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except csv.Error as error:
        raise DatasetError(
            f"{path}, line {line + 1}: it cannot be read: {error}. Look there for a quote that is "
            "not closed, or for text after one that is."
        ) from error


def _refuse_swallowed_lines(path: Path, line: int, fields: list[str], form: Format) -> None:
    """Refuse a quoted text that holds whole lines, as a quote that is not closed causes.

    Raises:
        DatasetError: naming the line where it begins.
    """
    for position, field in enumerate(fields):
        parts = field.split("\n")[1:]
        widths = [part.count(form.delimiter) for part in parts]
        if widths:
            widths[-1] += len(fields) - 1 - position  # the last part goes on with other fields
        if any(width >= len(fields) - 1 > 0 for width in widths):
            raise DatasetError(
                f"{path}, line {line}: a quoted text that begins there holds {len(parts):,} line "
                "breaks, and lines with fields of their own. Close the quote, or remove the line "
                "breaks."
            )


def _refuse_wrong_lines(path: Path, form: Format, types: Mapping[str, pa.DataType]) -> None:
    """Look for lines with values of other types.

    Raises:
        DatasetError: if there are any.
    """
    header, lines = _lines(path, form)
    checks = [(header.index(name), name, _checker(kind)) for name, kind in types.items()]
    checks += [(header.index(name), "text between colons", _nothing) for name in form.unnamed]
    problems = Problems(path)
    for line, fields in lines:
        if len(fields) != len(header):
            problems.add(line, _wrong_width(fields, header))
            continue
        for position, name, check in checks:
            expected = check(fields[position])
            if expected:
                problems.add(line, f"{name} is {quoted(fields[position])}, expected {expected}")
                break
    problems.refuse(_ADVICE)


def _nothing(text: str) -> str | None:
    return "nothing" if text else None


def _wrong_width(fields: list[str], header: list[str]) -> str:
    names = ", ".join(filter(None, header))
    return f"{len(fields)} fields, expected {len(header)} ({names})"


def _checker(kind: pa.DataType) -> Callable[[str], str | None]:
    """A function that returns what was expected if a text cannot be read as ``kind``."""

    def whole(text: str) -> str | None:
        return None if is_int64(text) else WHOLE_NUMBER

    def number(text: str) -> str | None:
        return None if _NUMBER.fullmatch(text.strip(_BLANKS)) else "a number"

    if pa.types.is_integer(kind):
        return whole
    if pa.types.is_floating(kind):
        return number
    return lambda text: None
