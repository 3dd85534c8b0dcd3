"""Convert TMDb's JSON for one movie to a typed record: null for unknown, lists of bounded length.

Source: https://developer.themoviedb.org/reference/movie-details with
``append_to_response=credits,keywords``. Bodies are decoded and checked in one pass, which builds
only the fields declared below: this code runs for each request and limits how many requests a core
can process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from foundation.schemas import NAMED, TMDB

Status = Literal["ok", "missing", "failed"]

MAX_CAST: Final = 10
"""Number of names of the cast that are kept, in billing order."""


class NotARecordError(ValueError):
    """A body that is not a JSON object with the requested id: truncated, or not from TMDb."""


class MalformedRecordError(ValueError):
    """A record with a field that is not of the documented type."""


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
        MalformedRecordError: naming the field that is not of the documented type.
    """
    try:
        movie = _MOVIE.decode(body)
    except msgspec.DecodeError as error:
        raise _explained(error) from None
    if movie.id != tmdb_id:
        raise NotARecordError(f"the record {movie.id} instead of {tmdb_id}")
    credits_ = movie.credits or _NO_CREDITS
    collection = movie.belongs_to_collection
    return TmdbRecord(
        tmdb_id,
        "ok",
        None,
        _positive(movie.budget, "budget"),
        _positive(movie.revenue, "revenue"),
        movie.popularity,
        movie.vote_average or None,
        _whole(movie.vote_count, "vote_count"),
        _positive(movie.runtime, "runtime", limit=2**31 - 1),
        _date(movie.release_date),
        movie.original_language or None,
        movie.imdb_id or None,
        tuple([genre.name for genre in movie.genres or () if genre.name]),
        {m.id: m.name for m in credits_.crew or () if m.job == "Director" and m.name},
        _top_billed(credits_.cast or []),
        {k.id: k.name for k in movie.keywords.keywords or () if k.name} if movie.keywords else {},
        {collection.id: collection.name} if collection and collection.name else {},
        fetched_at,
    )


def decode_found(body: bytes) -> int | None:
    """The TMDb id of the first movie in the answer to ``/find``, if there is one.

    Raises:
        NotARecordError: if the body is something else.
    """
    try:
        results = _FOUND.decode(body).movie_results
    except msgspec.DecodeError:
        raise NotARecordError("no list of movie_results") from None
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
# msgspec neither builds nor checks fields that are not declared: it takes 7 us for an answer that
# takes json 36 us and pydantic 26 us. With gc=False, garbage collection stays cheap in a crawl.


class _Item(msgspec.Struct, gc=False):
    id: int
    name: str | None = None


class _CastMember(msgspec.Struct, gc=False):
    id: int
    name: str | None = None
    order: float | None = None


class _CrewMember(msgspec.Struct, gc=False):
    id: int
    name: str | None = None
    job: str | None = None


class _Credits(msgspec.Struct, gc=False):
    cast: list[_CastMember] | None = None
    crew: list[_CrewMember] | None = None


class _Keywords(msgspec.Struct, gc=False):
    keywords: list[_Item] | None = None


class _Movie(msgspec.Struct, gc=False):
    id: int
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


def _explained(error: msgspec.DecodeError) -> ValueError:
    """The exception for a body that cannot be decoded."""
    message = str(error)
    if not isinstance(error, msgspec.ValidationError) or "`$." not in message:
        return NotARecordError("a body that is not TMDb's JSON")
    problem, _, place = message.partition(" - at ")
    return MalformedRecordError(f"{place.strip('`').removeprefix('$.')}: {problem}")


def _whole(value: float | None, field: str, limit: int = 2**63 - 1) -> int | None:
    if value is None or (type(value) is int and -limit <= value <= limit):
        return value
    if value != value // 1 or abs(value) > limit:
        raise MalformedRecordError(f"{field}: Expected a whole number up to {limit}, got {value}")
    return int(value)


def _positive(value: float | None, field: str, limit: int = 2**63 - 1) -> int | None:
    """A quantity for which TMDb's 0 means unknown."""
    return _whole(value, field, limit) if value and value > 0 else None


def _date(text: str | None) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise MalformedRecordError(f"release_date: Expected YYYY-MM-DD, got {text!r:.60}") from None


def _top_billed(cast: list[_CastMember]) -> dict[int, str]:
    """The first ``MAX_CAST`` names in billing order; members without a place in it come last."""
    try:
        ordered = sorted(cast, key=_ORDER)
    except TypeError:
        ordered = sorted(cast, key=lambda m: float("inf") if m.order is None else m.order)
    names: dict[int, str] = {}
    for member in ordered:
        if member.name:
            names[member.id] = member.name
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
