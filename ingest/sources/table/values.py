"""Ids, ratings and times from columns of any type; what is wrong with rows is collected."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from foundation.times import now
from ingest.sources.parsing import MAX_SHOWN, is_int64, quoted
from ingest.sources.table.files import TableFile
from ingest.sources.tables import HIGHEST, LOWEST
from ingest.sources.times import Converted, to_seconds

Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_WHOLE: Final = r"^-?(0|[1-9][0-9]{0,18})$"
_WHOLE_OR_FLOAT: Final = r"^-?((0|[1-9][0-9]{0,18})|(0|[1-9][0-9]{0,14})\.0+)$"
_NOTHING: Final = pa.array(["", "nan", "null", "none", "na", "n/a", "<na>", "nat"])
_DATE: Final = r"^[0-9]{4}-?[0-9]{2}"
"""How an ISO date begins; pandas reads today and now as well."""
_DATES: Final = "2024-05-31, 2024-05-31 18:30:00 or 2024-05-31T18:30:00Z"
_DECIMAL_COMMA: Final = r"^\s*([+-]?[0-9]+),([0-9]{1,2}|[0-9]{4,})\s*$"
"""Three digits after a comma may be thousands: 1,000."""
_SCALES: Final = (
    (0, 1),
    (-1, 1),
    (0, 5),
    (1, 7),
    (1, 10),
    (0, 10),
    (1, 20),
    (1, 100),
    (0, 100),
    (-10, 10),
)
"""Scales of ratings that are in use, those that hold fewest values first."""
_MISTAKES: Final = 0.05
"""A smaller share of ratings outside the scale says nothing about the scale."""
_CORRECT: Final = "Correct or remove each."


@dataclass
class WrongRows:
    """What is wrong with the rows of a table: the first rows of each problem, and their number."""

    num_rows: int
    """Of the table."""
    advice: list[str] = field(default_factory=list)
    _texts: dict[int, list[str]] = field(default_factory=dict)
    _is_wrong: Flags = field(init=False)

    def __post_init__(self) -> None:
        self._is_wrong = np.zeros(self.num_rows, bool)

    def add(self, wrong: Flags, text: Callable[[int], str], advice: str) -> None:
        """Note the rows where ``wrong: [N]`` is true, each with its text."""
        rows = np.flatnonzero(wrong)
        if not len(rows):
            return
        self._is_wrong |= wrong
        for row in rows[:MAX_SHOWN].tolist():
            self._texts.setdefault(row, []).append(text(row))
        self.advice.append(advice)

    @property
    def count(self) -> int:
        """Number of rows of which something was noted."""
        return int(self._is_wrong.sum())

    def refuse(self, file: TableFile) -> None:
        """Report all that was noted, by lines of the file.

        Raises:
            DatasetError: if anything was noted.
        """
        first = [(row, "; ".join(texts)) for row, texts in sorted(self._texts.items())]
        file.refuse(first[:MAX_SHOWN], self.count, " ".join(dict.fromkeys(self.advice)))


@dataclass(frozen=True)
class Ids:
    """Ids of users or movies as whole numbers."""

    numbers: Integers
    """``[N]``; of texts their positions among the sorted ones, from 1."""
    names: tuple[str, ...] | None
    """The texts, of which the i-th has the number i + 1; None if the ids are numbers."""

    def shown(self, row: int) -> str:
        """The id of a row, for messages."""
        number = int(self.numbers[row])
        return str(number) if self.names is None else repr(self.names[number - 1])


def ids(column: pa.ChunkedArray, name: str, wrong: WrongRows) -> tuple[Ids, str | None]:
    """Ids as whole numbers of 64 bits, if all of them are such; else as texts.

    With what the user should know, if only a few ids are no numbers.
    """
    texts = _texts(column)
    is_absent = _absent(texts)
    wrong.add(is_absent, lambda row: f"{name} {_no_value(texts, row)}", _CORRECT)
    present = texts.filter(pa.array(~is_absent))
    is_whole = np.asarray(pc.match_substring_regex(present, _WHOLE_OR_FLOAT).to_numpy(), bool)
    if is_whole.all():
        numbers = _as_int64(pc.replace_substring_regex(texts, r"\.0+$", ""), is_absent)
        if numbers is not None:
            return Ids(numbers, None), None
    notice = None
    if is_whole.mean() > 0.5:
        others = present.filter(pa.array(~is_whole))
        example = others[0].as_py() if len(others) else "of more than 64 bits"
        notice = (
            f"{name}: {max(1, len(others)):,} of {len(present):,} ids are not whole numbers (such "
            f"as {quoted(example)}), so all of them are taken as texts"
        )
    encoded = pc.fill_null(texts, "").combine_chunks().dictionary_encode()
    values = np.array(encoded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(values)
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(1, len(values) + 1)
    numbers = rank[encoded.indices.to_numpy(zero_copy_only=False)]
    return Ids(numbers, tuple(values[order].tolist())), notice


def positions(column: pa.ChunkedArray, known: Ids, numbers: Integers) -> Integers:
    """Positions of ids of another table in ``numbers``, sorted ones of ``known``; -1 if absent."""
    texts = _texts(column)
    if known.names is None:
        is_whole = pc.fill_null(pc.match_substring_regex(texts, _WHOLE_OR_FLOAT), False)
        absent = ~np.asarray(is_whole.to_numpy(), bool)
        whole = pc.replace_substring_regex(texts, r"\.0+$", "")
        absent |= _are_long(whole, absent)
        found = _as_int64(whole, absent)
        assert found is not None
    else:
        at = pc.index_in(texts, pa.array(known.names, pa.string()))
        absent = np.asarray(at.is_null().to_numpy(), bool)
        found = (pc.fill_null(at, -1).to_numpy() + 1).astype(np.int64)
    nearest = np.searchsorted(numbers, found).clip(max=len(numbers) - 1)
    return np.where(~absent & (numbers[nearest] == found), nearest, -1)


def stars(
    column: pa.ChunkedArray, name: str, scale: tuple[float, float] | None, wrong: WrongRows
) -> npt.NDArray[np.float32]:
    """Ratings in stars; those of a scale are mapped linearly from it to 0.5 to 5 stars."""
    texts = _texts(column)
    raw = pc.replace_substring_regex(texts, _DECIMAL_COMMA, r"\1.\2")
    values = pd.to_numeric(pd.Series(raw.to_pandas()), errors="coerce").to_numpy(np.float64)
    is_number = np.isfinite(values)

    def found(row: int) -> str:
        return f"{name} is {quoted(texts[row].as_py() or '')}"

    wrong.add(~is_number, lambda row: f"{found(row)}, expected a number", _CORRECT)
    low, high = (LOWEST, HIGHEST) if scale is None else scale
    outside = is_number & ~((values >= low) & (values <= high))
    advice = _scale_advice(values[is_number]) if scale is None and outside.any() else _CORRECT
    wrong.add(outside, lambda row: f"{found(row)}, expected {low:g} to {high:g}", advice)
    if scale is not None and not are_stars(scale):
        values = LOWEST + (values - low) * (HIGHEST - LOWEST) / (high - low)
    with np.errstate(over="ignore"):  # of what is outside, and refused
        return values.astype(np.float32)


def _scale_advice(values: npt.NDArray[np.float64]) -> str:
    """What to do about ratings outside 0.5 to 5: most of them may be on another scale."""
    if ((values < LOWEST) | (values > HIGHEST)).mean() < _MISTAKES:
        return _CORRECT
    share = {scale: ((values >= scale[0]) & (values <= scale[1])).mean() for scale in _SCALES}
    fitting = [scale for scale, inside in share.items() if inside > 1 - _MISTAKES]
    low, high = fitting[0] if fitting else (values.min(), values.max())
    return (
        f"The ratings are {values.min():g} to {values.max():g}, expected {LOWEST:g} to "
        f"{HIGHEST:g} stars. If they have another scale, name its ends, such as --set "
        f"data.rating_scale=[{low:g},{high:g}]"
    )


def are_stars(scale: tuple[float, float]) -> bool:
    """Whether ratings of a scale are stars as they are: of 0.5 or 1 to 5."""
    return scale in ((LOWEST, HIGHEST), (1.0, HIGHEST))


def times(
    column: pa.ChunkedArray, name: str, unit: str, wrong: WrongRows
) -> tuple[Integers, str | None]:
    """Seconds since 1970 UTC, from dates or whole numbers, and what the user should know."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _checked(_of_timestamps(column), column, name, wrong)
    texts = _texts(column)
    present = texts.filter(pa.array(~_absent(texts)))
    if pc.all(pc.match_substring_regex(present, r"^-?[0-9]{1,19}(\.[0-9]*)?$")).as_py():
        return _of_numbers(texts, texts, name, unit, wrong)
    if pc.all(pc.match_substring_regex(present, r"^[0-9.]+[eE]\+?[0-9]{1,2}$")).as_py():
        filled = pc.fill_null(texts, "").to_pandas()
        numbers = pd.to_numeric(filled, errors="coerce").to_numpy(np.float64)
        fits = np.abs(numbers) < 2.0**63
        whole = pa.array(np.where(fits, numbers, 0).round().astype(np.int64), mask=~fits)
        return _of_numbers(_texts(pa.chunked_array([whole])), texts, name, unit, wrong)
    is_date = pc.match_substring_regex(texts, _DATE)
    written = pc.if_else(pc.fill_null(is_date, False), texts, None).to_pandas()
    dates = pd.to_datetime(written, format="ISO8601", utc=True, errors="coerce")
    seconds = pd.Series(dates).dt.as_unit("s")
    found = np.where(seconds.isna(), -1, seconds.astype("int64").to_numpy())
    return _checked(found, texts, name, wrong)


def _of_timestamps(column: pa.ChunkedArray) -> Integers:
    """Seconds of timestamps; -1 where there is none. Those without a time zone are in UTC."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    numbers = pc.fill_null(column.cast(pa.int64()), -per_second).to_numpy()
    found: Integers = numbers // per_second
    return found


def _of_numbers(
    texts: pa.ChunkedArray, written: pa.ChunkedArray, name: str, unit: str, wrong: WrongRows
) -> tuple[Integers, str | None]:
    """Seconds of whole numbers; ``written`` is how the file has them, for messages."""
    is_absent = _absent(written)
    wrong.add(is_absent, lambda row: f"{name} {_no_value(written, row)}, expected a time", _CORRECT)
    if is_absent.all():
        return np.zeros(len(texts), np.int64), None
    whole_texts = pc.replace_substring_regex(texts, r"\..*$", "")
    is_long = ~is_absent & _are_long(whole_texts, is_absent)
    wrong.add(
        is_long,
        lambda row: f"{name} is {quoted(written[row].as_py())}, which no unit of time allows",
        _CORRECT,
    )
    is_left_out = is_absent | is_long
    whole = _as_int64(whole_texts, is_left_out)
    if whole is None or is_left_out.all():
        return np.zeros(len(texts), np.int64), None
    whole = np.where(is_left_out, whole[~is_left_out][0], whole)
    found = to_seconds(whole, unit, now())
    if isinstance(found, Converted):
        return found.seconds, found.notice
    wrong.add(
        found.wrong & ~is_left_out,
        lambda row: found.found(row).replace("timestamp", name, 1),
        f"Expected times in {found.expected}.",
    )
    return np.zeros(len(texts), np.int64), None


def _checked(
    seconds: Integers, texts: pa.ChunkedArray, name: str, wrong: WrongRows
) -> tuple[Integers, str | None]:
    """Refuse what is no date, or none from 1970 until today."""
    is_wrong = (seconds < 0) | (seconds > now() + 86_400)

    def found(row: int) -> str:
        value = texts[row]
        text = str(value if pa.types.is_timestamp(value.type) else value.as_py() or "")
        return f"is {quoted(text)}" if value.is_valid and text else "is empty"

    wrong.add(
        is_wrong,
        lambda row: f"{name} {found(row)}, expected a date from 1970 to today",
        f"Write dates as {_DATES}, or times as whole numbers; --set data.timestamp_unit names "
        "their unit.",
    )
    return seconds, None


def _no_value(texts: pa.ChunkedArray, row: int) -> str:
    text = texts[row].as_py()
    return f"is {quoted(text)}, which stands for no value" if text else "is empty"


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        # Arrow writes large whole numbers with an exponent.
        with contextlib.suppress(pa.ArrowInvalid):
            column = column.cast(pa.int64())
    return pc.utf8_trim_whitespace(column.cast(pa.string()))


def _absent(texts: pa.ChunkedArray) -> Flags:
    found = pc.fill_null(pc.is_in(pc.utf8_lower(texts), _NOTHING), True)
    return np.asarray(found.to_numpy(), bool) | np.asarray(pc.is_null(texts).to_numpy(), bool)


def _are_long(texts: pa.ChunkedArray, is_absent: Flags) -> Flags:
    """Which texts, of those that are there, are numbers of more than 64 bits."""
    if _as_int64(texts, is_absent) is not None:
        return np.zeros(len(texts), bool)
    fit = [is_int64(text) for text in pc.fill_null(texts, "").to_pylist()]
    return ~is_absent & ~np.array(fit, bool)


def _as_int64(texts: pa.ChunkedArray, is_absent: Flags) -> Integers | None:
    """Whole numbers, 0 where absent; None if one has more than 64 bits."""
    filled = pc.if_else(pa.array(is_absent), "0", pc.fill_null(texts, ""))
    try:
        numbers: Integers = filled.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return numbers
