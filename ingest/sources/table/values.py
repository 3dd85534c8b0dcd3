"""Ids, ratings and times from columns of any type; what is wrong with rows is collected."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from foundation.times import now
from ingest.sources.parsing import MAX_SHOWN, is_int64, quoted
from ingest.sources.tables import HIGHEST, LOWEST
from ingest.sources.times import Converted, to_seconds

Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_WHOLE: Final = r"^-?(0|[1-9][0-9]{0,18})$"
_WHOLE_AS_FLOAT: Final = r"^-?(0|[1-9][0-9]{0,14})\.0+$"
_NOTHING: Final = pa.array(["", "nan", "null", "none", "na", "n/a", "<na>", "nat"])
_DATES: Final = "2024-05-31, 2024-05-31 18:30:00 or 2024-05-31T18:30:00Z"


@dataclass
class WrongRows:
    """What is wrong with the rows of a table: the first rows of each problem, and their number."""

    first: list[tuple[int, str]] = field(default_factory=list)
    count: int = 0
    advice: list[str] = field(default_factory=list)

    def add(self, wrong: Flags, text: Callable[[int], str], advice: str) -> None:
        """Note the rows where ``wrong: [N]`` is true, each with its text."""
        rows = np.flatnonzero(wrong)
        if not len(rows):
            return
        self.first += [(row, text(row)) for row in rows[:MAX_SHOWN].tolist()]
        self.count += len(rows)
        self.advice.append(advice)


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


def ids(column: pa.ChunkedArray, name: str, wrong: WrongRows) -> Ids:
    """Ids as whole numbers of 64 bits, if all of them are such; else as texts."""
    texts = _texts(column)
    is_absent = _absent(texts)
    wrong.add(is_absent, lambda row: f"{name} is empty", "Correct or remove each.")
    present = texts.filter(pa.array(~is_absent))
    for pattern in (_WHOLE, _WHOLE_AS_FLOAT):
        if pc.all(pc.match_substring_regex(present, pattern)).as_py():
            whole = pc.replace_substring_regex(texts, r"\.0+$", "")
            numbers = _as_int64(whole, is_absent)
            if numbers is not None:
                return Ids(numbers, None)
    encoded = pc.fill_null(texts, "").combine_chunks().dictionary_encode()
    values = np.array(encoded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(values)
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(1, len(values) + 1)
    return Ids(rank[encoded.indices.to_numpy(zero_copy_only=False)], tuple(values[order].tolist()))


def numbered(column: pa.ChunkedArray, known: Ids) -> Integers:
    """The numbers of ids of another table: those of ``known``, 0 of texts that are not there."""
    texts = _texts(column)
    if known.names is None:
        numbers = _as_int64(pc.replace_substring_regex(texts, r"\.0+$", ""), _absent(texts))
        return np.zeros(len(texts), np.int64) if numbers is None else numbers
    found = pc.index_in(texts, pa.array(known.names, pa.string()))
    return (pc.fill_null(found, -1).to_numpy() + 1).astype(np.int64)


def stars(
    column: pa.ChunkedArray, name: str, scale: tuple[float, float] | None, wrong: WrongRows
) -> npt.NDArray[np.float32]:
    """Ratings in stars; those of a scale are mapped linearly from it to 0.5 to 5 stars."""
    texts = _texts(column)
    raw = pc.replace_substring(texts, ",", ".")
    values = pd.to_numeric(pd.Series(raw.to_pandas()), errors="coerce").to_numpy(np.float64)
    is_number = np.isfinite(values)

    def found(row: int) -> str:
        return f"{name} is {quoted(texts[row].as_py() or '')}"

    wrong.add(~is_number, lambda row: f"{found(row)}, expected a number", "Correct or remove each.")
    low, high = (LOWEST, HIGHEST) if scale is None else scale
    outside = is_number & ~((values >= low) & (values <= high))
    advice = "Correct or remove each."
    if scale is None and outside.any():
        least, most = values[is_number].min(), values[is_number].max()
        advice = (
            f"The ratings are {least:g} to {most:g}, expected {LOWEST:g} to {HIGHEST:g} stars. If "
            "they have another scale, name its ends: --set data.rating_scale="
            f"[{min(least, 1):g},{most:g}]"
        )
    wrong.add(outside, lambda row: f"{found(row)}, expected {low:g} to {high:g}", advice)
    if scale is not None and not are_stars(scale):
        values = LOWEST + (values - low) * (HIGHEST - LOWEST) / (high - low)
    with np.errstate(over="ignore"):  # of what is outside, and refused
        return values.astype(np.float32)


def are_stars(scale: tuple[float, float]) -> bool:
    """Whether ratings of a scale are stars as they are."""
    return scale[0] >= LOWEST and scale[1] <= HIGHEST


def times(
    column: pa.ChunkedArray, name: str, unit: str, wrong: WrongRows
) -> tuple[Integers, str | None]:
    """Seconds since 1970 UTC, from dates or whole numbers, and what the user should know."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _checked(_seconds(pd.to_datetime(column.to_pandas(), utc=True)), column, name, wrong)
    texts = _texts(column)
    present = texts.filter(pa.array(~_absent(texts)))
    if pc.all(pc.match_substring_regex(present, r"^-?[0-9]{1,19}(\.[0-9]*)?$")).as_py():
        return _of_numbers(texts, name, unit, wrong)
    if pc.all(pc.match_substring_regex(present, r"^[0-9.]+[eE]\+?[0-9]{1,2}$")).as_py():
        whole = pd.to_numeric(pc.fill_null(texts, "").to_pandas(), errors="coerce").fillna(-1)
        return _of_numbers(_texts(pa.chunked_array([whole.astype("int64")])), name, unit, wrong)
    dates = pd.to_datetime(texts.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    return _checked(_seconds(dates), texts, name, wrong)


def _of_numbers(
    texts: pa.ChunkedArray, name: str, unit: str, wrong: WrongRows
) -> tuple[Integers, str | None]:
    is_absent = _absent(texts)
    wrong.add(is_absent, lambda row: f"{name} is empty, expected a time", "Correct or remove each.")
    whole = _as_int64(pc.replace_substring_regex(texts, r"\..*$", ""), is_absent)
    if is_absent.all():
        return np.zeros(len(texts), np.int64), None
    if whole is None:
        is_long = np.array([not _fits(text) for text in pc.fill_null(texts, "").to_pylist()])
        wrong.add(
            is_long,
            lambda row: f"{name} is {quoted(texts[row].as_py())}, which no unit of time allows",
            "Correct or remove each.",
        )
        return np.zeros(len(texts), np.int64), None
    whole = np.where(is_absent, whole[~is_absent][0], whole)
    found = to_seconds(whole, unit, now())
    if isinstance(found, Converted):
        return found.seconds, found.notice
    advice = f"Expected times in {found.expected}."
    wrong.add(found.wrong, lambda row: found.found(row).replace("timestamp", name, 1), advice)
    return np.zeros(len(texts), np.int64), None


def _fits(text: str) -> bool:
    """Whether the whole part of a number fits into 64 bits."""
    return is_int64(text.partition(".")[0] or "0")


def _checked(
    seconds: Integers, texts: pa.ChunkedArray, name: str, wrong: WrongRows
) -> tuple[Integers, str | None]:
    """Refuse what is no date, or none from 1970 until today."""
    is_wrong = (seconds < 0) | (seconds > now() + 86_400)
    wrong.add(
        is_wrong,
        lambda row: (
            f"{name} is {quoted(str(texts[row].as_py() or ''))}, expected a date from 1970 to today"
        ),
        f"Write dates as {_DATES}, or times as whole numbers; --set data.timestamp_unit names "
        "their unit.",
    )
    return seconds, None


def _seconds(dates: Any) -> Integers:
    found = pd.Series(dates).dt.as_unit("s")
    return np.where(found.isna(), -1, found.astype("int64").to_numpy())


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        # Arrow writes large whole numbers with an exponent.
        with contextlib.suppress(pa.ArrowInvalid):
            column = column.cast(pa.int64())
    return pc.utf8_trim_whitespace(column.cast(pa.string()))


def _absent(texts: pa.ChunkedArray) -> Flags:
    found = pc.fill_null(pc.is_in(pc.utf8_lower(texts), _NOTHING), True)
    return np.asarray(found.to_numpy(), bool) | np.asarray(pc.is_null(texts).to_numpy(), bool)


def _as_int64(texts: pa.ChunkedArray, is_absent: Flags) -> Integers | None:
    """Whole numbers, 0 where absent; None if one has more than 64 bits."""
    filled = pc.if_else(pa.array(is_absent), "0", texts)
    try:
        numbers: Integers = filled.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return numbers
