"""Convert TMDb's JSON for one movie to a typed record: null for unknown, lists of bounded length.

TMDb is edited by its users. A value that cannot be right, or is not of the documented type, becomes
null, and the record's ``error`` says which: ``LIMITS`` has the numbers that can be.

Source: https://developer.themoviedb.org/reference/movie-details with
``append_to_response=credits,keywords``. Bodies are decoded and checked in one pass, which builds
only the fields declared below: this code runs for each request and limits how many requests a core
can process.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from itertools import chain, islice
from operator import attrgetter, itemgetter
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec
import numpy as np
import pyarrow as pa

from foundation.schemas import NAMED, TMDB
from foundation.times import is_film_year

Status = Literal["ok", "missing", "failed"]

MAX_CAST: Final = 10
"""Number of names of the cast that are kept, in billing order."""


class NotARecordError(ValueError):
    """A body that is not a JSON object with the requested id: truncated, or not from TMDb."""


class Limits(NamedTuple):
    """The numbers that a field can have; others become null."""

    lowest: float
    highest: float
    zero_is_unknown: bool = False
    """Whether TMDb writes 0 for an unknown value."""


LIMITS: Final[Mapping[str, Limits]] = {
    # Less is a number of thousands or millions, or a placeholder; more no film has cost or earned.
    "budget": Limits(1_000, 2_000_000_000, zero_is_unknown=True),
    "revenue": Limits(1_000, 20_000_000_000, zero_is_unknown=True),
    "popularity": Limits(0, 1e9),
    "vote_average": Limits(0, 10, zero_is_unknown=True),
    "vote_count": Limits(0, 1e9),
    "runtime": Limits(1, 100_000, zero_is_unknown=True),
}
"""Money in US dollars, the average in stars of ten, the runtime in minutes."""

_WHOLE: Final = ("budget", "revenue", "vote_count", "runtime")
LEFT_OUT: Final = "left out: "
"""How ``error`` begins in an ok record."""
MAX_NAMES: Final = 500
"""Number of genres, directors and keywords that are kept of each; TMDb's longest list has 164."""
_LONGEST_NAME: Final = 300
_LANGUAGE: Final = re.compile("[a-z]{2,3}")
_IMDB_ID: Final = re.compile("tt[0-9]{5,12}")
_DATE: Final = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MAX_NOTED: Final = 500
"""Characters of ``error`` about what was left out."""


Names = Mapping[int, str]
"""People, keywords or a collection: names by id, in order."""


class TmdbRecord(NamedTuple):
    """Fields of one movie: the columns of ``schemas.TMDB`` after ``movie_id``, in order."""

    tmdb_id: int | None
    status: Status
    error: str | None
    budget: int | None
    revenue: int | None
    popularity: float | None
    vote_average: float | None
    vote_count: int | None
    runtime: int | None
    release_date: date | None
    original_language: str | None
    imdb_id: str | None
    genres: Sequence[str]
    directors: Names
    cast: Names
    keywords: Names
    collection: Names
    fetched_at: datetime


Row = tuple[int, TmdbRecord]
"""A movie id of the data set, and TMDb's record of the movie."""


def without_data(
    tmdb_id: int | None, status: Status, error: str, fetched_at: datetime
) -> TmdbRecord:
    """The record of a movie that TMDb does not have, or that could not be fetched."""
    unknown = (None,) * 9
    return TmdbRecord(tmdb_id, status, error, *unknown, (), {}, {}, {}, {}, fetched_at)


def decode_movie(body: bytes, tmdb_id: int, fetched_at: datetime) -> TmdbRecord:
    """The record in TMDb's answer for ``tmdb_id``.

    Raises:
        NotARecordError: if the body is something else.
    """
    try:
        return _record(_MOVIE.decode(body), tmdb_id, fetched_at, [])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        left_out: list[str] = []
        try:
            movie = msgspec.convert(_usable(body, left_out), _Movie)
        except RecursionError:
            raise NotARecordError("a body that is nested too deeply") from None
        return _record(movie, tmdb_id, fetched_at, left_out)


def _record(movie: _Movie, tmdb_id: int, fetched_at: datetime, left_out: list[str]) -> TmdbRecord:
    """The record; appends to ``left_out`` what becomes null although there is a value."""
    if movie.id != tmdb_id:
        raise NotARecordError(f"the record {movie.id} instead of {tmdb_id}")
    credits_ = movie.credits or _NO_CREDITS
    collection = movie.belongs_to_collection
    budget, revenue, popularity, vote_average, vote_count, runtime = [
        _number(name, getattr(movie, name), left_out) for name in LIMITS
    ]
    release_date = _date(movie.release_date, left_out)
    language = _text("original_language", movie.original_language, _LANGUAGE, left_out)
    imdb_id = _text("imdb_id", movie.imdb_id, _IMDB_ID, left_out)
    return TmdbRecord(
        tmdb_id,
        "ok",
        f"{LEFT_OUT}{'; '.join(left_out)}"[:_MAX_NOTED] if left_out else None,
        budget,
        revenue,
        popularity,
        vote_average,
        vote_count,
        runtime,
        release_date,
        language,
        imdb_id,
        tuple([name for g in movie.genres or () if (name := _name(g.name))][:MAX_NAMES]),
        _directors(credits_.crew or ()),
        _top_billed(credits_.cast or []),
        _first({k.id: name for k in movie.keywords.keywords or () if (name := _name(k.name))})
        if movie.keywords
        else {},
        {collection.id: name} if collection and (name := _name(collection.name)) else {},
        fetched_at,
    )


def decode_found(body: bytes) -> int | None:
    """The TMDb id of the first movie in the answer to ``/find``, if there is one.

    Raises:
        NotARecordError: if the body is something else, or the id cannot be one.
    """
    try:
        results = _FOUND.decode(body).movie_results
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotARecordError("no list of movie_results with ids") from None
    return results[0].id if results else None


def to_table(rows: Iterable[Row]) -> pa.Table:
    """The rows as a table of ``schemas.TMDB``, sorted by movie id."""
    movie_ids, records = zip(*sorted(rows, key=itemgetter(0)), strict=True)
    arrays = [_array(field.type, values) for field, values in zip(
        TMDB, chain([movie_ids], zip(*records, strict=True)), strict=True
    )]  # fmt: skip
    return pa.table(arrays, schema=TMDB)


def from_row(row: dict[str, Any]) -> TmdbRecord:
    """The record in a row of a table, as ``pyarrow.Table.to_pylist`` gives it."""
    fields = {name: row[name] for name in TmdbRecord._fields} | {"genres": tuple(row["genres"])}
    for name in ("directors", "cast", "keywords"):
        fields[name] = {item["id"]: item["name"] for item in row[name]}
    collection = row["collection"]
    fields["collection"] = {collection["id"]: collection["name"]} if collection else {}
    return TmdbRecord(**fields)


# -- what is read of TMDb's answers ----------------------------------------------------------------

_Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
# msgspec neither builds nor checks fields that are not declared: it takes 7 us for an answer that
# takes json 36 us and pydantic 26 us. With gc=False, garbage collection stays cheap in a crawl.


class _Item(msgspec.Struct, gc=False):
    id: _Id
    name: str | None = None


class _CastMember(msgspec.Struct, gc=False):
    id: _Id
    name: str | None = None
    order: float | None = None


class _CrewMember(msgspec.Struct, gc=False):
    id: _Id
    name: str | None = None
    job: str | None = None


class _Credits(msgspec.Struct, gc=False):
    cast: list[_CastMember] | None = None
    crew: list[_CrewMember] | None = None


class _Keywords(msgspec.Struct, gc=False):
    keywords: list[_Item] | None = None


class _Movie(msgspec.Struct, gc=False):
    id: _Id
    # TMDb writes whole numbers as 8 or 8.0.
    budget: float | int | None = None
    revenue: float | int | None = None
    popularity: float | None = None
    vote_average: float | None = None
    vote_count: float | int | None = None
    runtime: float | int | None = None
    release_date: str | None = None
    original_language: str | None = None
    imdb_id: str | None = None
    genres: list[_Item] | None = None
    belongs_to_collection: _Item | None = None
    credits: _Credits | None = None
    keywords: _Keywords | None = None


class _Found(msgspec.Struct, gc=False):
    movie_results: list[_Item]


_MOVIE: Final = msgspec.json.Decoder(_Movie)
_FOUND: Final = msgspec.json.Decoder(_Found)
_NO_CREDITS: Final = _Credits()
_ORDER: Final = attrgetter("order")


def _usable(body: bytes, left_out: list[str]) -> dict[str, Any]:
    """The fields of an answer that are of the documented types; appends the names of others.

    Raises:
        NotARecordError: if the body is no JSON object with an id.
    """
    try:
        found = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise NotARecordError("a body that is not TMDb's JSON") from None
    if not isinstance(found, dict):
        raise NotARecordError("a body that is not TMDb's JSON")
    usable = {}
    for field in msgspec.structs.fields(_Movie):
        wrong: list[Any] = []
        kept = _usable_part(found.get(field.name), field.type, wrong)
        if kept is not None:
            usable[field.name] = kept
        left_out += [f"{field.name}: {_quoted(part)}" for part in wrong]
    if "id" not in usable:
        raise NotARecordError("an answer without an id")
    return usable


def _usable_part(value: Any, kind: Any, wrong: list[Any]) -> Any:
    """``value`` without the parts that are not of type ``kind``, which ``wrong`` gets; None if
    nothing is left."""
    if isinstance(value, list):
        parts = [_usable_part(part, _item_type(kind), wrong) for part in value]
        value = [part for part in parts if part is not None]
    elif isinstance(value, dict) and (struct := _struct_type(kind)) is not None:
        types = {field.name: field.type for field in msgspec.structs.fields(struct)}
        parts_by_name = {
            name: _usable_part(value[name], types[name], wrong) for name in types.keys() & value
        }
        value = {name: part for name, part in parts_by_name.items() if part is not None}
    try:
        if isinstance(value, str) and not _is_text(value):
            raise ValueError
        msgspec.convert(value, kind)
    except (ValueError, RecursionError, OverflowError):
        wrong.append(value)
        return None
    return value


def _item_type(kind: Any) -> Any:
    """Of a list's items."""
    lists = [part for part in get_args(kind) if get_origin(part) is list]
    return get_args(lists[0])[0] if lists else Any


def _struct_type(kind: Any) -> type[msgspec.Struct] | None:
    """The struct that a type, perhaps of a union, is."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _is_text(value: str) -> bool:
    """Whether a text is without bytes or code points that are no characters."""
    return "\ufffd" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def _quoted(value: Any) -> str:
    """A value, for the record's error."""
    return ascii(value)[:60]


def _number(name: str, value: float | None, left_out: list[str]) -> Any:
    """A number within ``LIMITS``, or None."""
    if value is None:
        return None
    limits = LIMITS[name]
    if value == 0 and limits.zero_is_unknown:
        return None
    if limits.lowest <= value <= limits.highest:
        if name not in _WHOLE:
            return float(value)
        if value == value // 1:
            return int(value)
    left_out.append(f"{name}: {value}")
    return None


def _text(
    name: str, value: str | None, pattern: re.Pattern[str], left_out: list[str]
) -> str | None:
    if not value:
        return None
    if pattern.fullmatch(value):
        return value
    left_out.append(f"{name}: {_quoted(value)}")
    return None


def _name(text: str | None) -> str | None:
    """A name as it is, or without control characters and in one line; None if nothing is left."""
    if not text or (text.isprintable() and len(text) <= _LONGEST_NAME and not text.isspace()):
        return text or None
    visible = "".join(c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join(visible.split())[:_LONGEST_NAME] or None


def _directors(crew: Iterable[_CrewMember]) -> dict[int, str]:
    return _first({m.id: name for m in crew if m.job == "Director" and (name := _name(m.name))})


def _first(names: dict[int, str]) -> dict[int, str]:
    return names if len(names) <= MAX_NAMES else dict(islice(names.items(), MAX_NAMES))


def _date(text: str | None, left_out: list[str]) -> date | None:
    if not text:
        return None
    try:
        found = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        found = None
    if found is None or not is_film_year(found.year):
        left_out.append(f"release_date: {_quoted(text)}")
        return None
    return found


def _top_billed(cast: list[_CastMember]) -> dict[int, str]:
    """The first ``MAX_CAST`` names in billing order; members without a place in it come last."""
    try:
        ordered = sorted(cast, key=_ORDER)
    except TypeError:
        ordered = sorted(cast, key=lambda m: float("inf") if m.order is None else m.order)
    names: dict[int, str] = {}
    for member in ordered:
        if name := _name(member.name):
            names[member.id] = name
            if len(names) == MAX_CAST:
                break
    return names


# -- columns ---------------------------------------------------------------------------------------


def _array(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """A column, from Python values."""
    if kind == NAMED:
        pairs = [next(iter(names.items()), None) for names in values]
        return pa.array([pair and {"id": pair[0], "name": pair[1]} for pair in pairs], NAMED)
    if not pa.types.is_list(kind) or kind.value_type != NAMED:
        return pa.array(values, kind)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(names) for names in values], out=offsets[1:])
    children = [
        pa.array(list(chain.from_iterable(values)), pa.int64()),
        pa.array(list(chain.from_iterable(names.values() for names in values)), pa.string()),
    ]
    structs = pa.StructArray.from_arrays(children, fields=list(NAMED))
    return pa.ListArray.from_arrays(offsets, structs, type=kind)
