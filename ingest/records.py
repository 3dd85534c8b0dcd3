"""TMDb's JSON for one movie into one typed record: null for unknown, fixed types, bounded lists.

Source: https://developer.themoviedb.org/reference/movie-details with
``append_to_response=credits,keywords``. Bodies are decoded and checked in one pass, which builds
only the fields declared below: this code runs once a request and decides how many requests a core
can take.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from itertools import chain
from operator import itemgetter
from typing import Annotated, Any, Final, Literal, NamedTuple, NotRequired

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from ingest.schemas import NAMED, TMDB

Status = Literal["ok", "missing", "failed"]

MAX_CAST: Final = 10
"""Names of the cast that are kept, in billing order."""


class NotARecordError(ValueError):
    """A body that is no JSON object with the id asked for: cut off, or not from TMDb at all."""


class MalformedRecordError(ValueError):
    """A record with a field that is not of the documented type."""


class Named(NamedTuple):
    """A person, keyword or collection."""

    id: int
    name: str


class TmdbRecord(NamedTuple):
    """What is known of one movie; the columns of ``schemas.TMDB`` after ``movie_id``, in order."""

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
    directors: Sequence[Named]
    cast: Sequence[Named]
    keywords: Sequence[Named]
    collection: Named | None
    fetched_at: datetime


Row = tuple[int, TmdbRecord]
"""A MovieLens movie id and what TMDb has on the movie."""


def without_data(
    tmdb_id: int | None, status: Status, error: str, fetched_at: datetime
) -> TmdbRecord:
    """The record of a movie that TMDb does not have, or that could not be had."""
    unknown = (None,) * 9
    return TmdbRecord(tmdb_id, status, error, *unknown, (), (), (), (), None, fetched_at)


def decode_movie(body: bytes, tmdb_id: int, fetched_at: datetime) -> TmdbRecord:
    """The record in TMDb's answer for ``tmdb_id``.

    Raises:
        NotARecordError: if the body is something else.
        MalformedRecordError: naming the field that is not of the documented type.
    """
    try:
        movie = _MOVIE.validate_json(body)
    except ValidationError as error:
        raise _explained(error) from None
    if movie["id"] != tmdb_id:
        raise NotARecordError(f"the record {movie['id']} instead of {tmdb_id}")
    credits_ = movie.get("credits") or {}
    crew, cast = credits_.get("crew") or (), credits_.get("cast") or ()
    collection = movie.get("belongs_to_collection")
    return TmdbRecord(
        tmdb_id=tmdb_id,
        status="ok",
        error=None,
        budget=_positive(movie.get("budget")),
        revenue=_positive(movie.get("revenue")),
        popularity=movie.get("popularity"),
        vote_average=movie.get("vote_average") or None,
        vote_count=movie.get("vote_count"),
        runtime=_positive(movie.get("runtime")),
        release_date=_date(movie.get("release_date")),
        original_language=movie.get("original_language") or None,
        imdb_id=movie.get("imdb_id") or None,
        genres=[genre.name for genre in _distinct(movie.get("genres") or ())],
        directors=_distinct(c for c in crew if c.get("job") == "Director"),
        cast=_distinct(sorted(cast, key=_billing))[:MAX_CAST],
        keywords=_distinct((movie.get("keywords") or {}).get("keywords") or ()),
        collection=next(iter(_distinct([collection])), None) if collection else None,
        fetched_at=fetched_at,
    )


def decode_found(body: bytes) -> int | None:
    """The TMDb id of the first movie in the answer to ``/find``, if there is one.

    Raises:
        NotARecordError: if the body is something else.
    """
    try:
        results = _FOUND.validate_json(body)["movie_results"]
    except ValidationError:
        raise NotARecordError("no list of movie_results") from None
    return results[0]["id"] if results else None


def to_table(rows: Iterable[Row]) -> pa.Table:
    """The rows as a table of ``schemas.TMDB``, sorted by movie id."""
    movie_ids, records = zip(*sorted(rows, key=itemgetter(0)), strict=True)
    arrays = [_array(field.type, values) for field, values in zip(
        TMDB, chain([movie_ids], zip(*records, strict=True)), strict=True
    )]  # fmt: skip
    return pa.table(arrays, schema=TMDB)


def from_row(row: dict[str, Any]) -> TmdbRecord:
    """The record in a row of a table, as ``pyarrow.Table.to_pylist`` gives it."""
    fields = {name: row[name] for name in TmdbRecord._fields}
    for name in ("directors", "cast", "keywords"):
        fields[name] = [Named(**item) for item in row[name]]
    if row["collection"] is not None:
        fields["collection"] = Named(**row["collection"])
    return TmdbRecord(**fields)


# -- what is read of TMDb's answers ----------------------------------------------------------------

_Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Item(TypedDict):
    id: _Whole
    name: NotRequired[str | None]


class _CastMember(_Item):
    order: NotRequired[_Number | None]


class _CrewMember(_Item):
    job: NotRequired[str | None]


class _Credits(TypedDict):
    cast: NotRequired[list[_CastMember] | None]
    crew: NotRequired[list[_CrewMember] | None]


class _Keywords(TypedDict):
    keywords: NotRequired[list[_Item] | None]


@with_config(ConfigDict(extra="ignore"))
class _Movie(TypedDict):
    id: _Whole
    budget: NotRequired[_Whole | None]
    revenue: NotRequired[_Whole | None]
    popularity: NotRequired[_Number | None]
    vote_average: NotRequired[_Number | None]
    vote_count: NotRequired[_Whole | None]
    runtime: NotRequired[_Int32 | None]
    release_date: NotRequired[str | None]
    original_language: NotRequired[str | None]
    imdb_id: NotRequired[str | None]
    genres: NotRequired[list[_Item] | None]
    belongs_to_collection: NotRequired[_Item | None]
    credits: NotRequired[_Credits | None]
    keywords: NotRequired[_Keywords | None]


class _Found(TypedDict):
    movie_results: list[_Item]


_MOVIE: Final = TypeAdapter(_Movie)
_FOUND: Final = TypeAdapter(_Found)


def _explained(error: ValidationError) -> ValueError:
    """What is wrong with the first wrong field."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid" or first["loc"] in ((), ("id",)):
        return NotARecordError("a body that is not TMDb's JSON")
    field = ".".join(map(str, first["loc"]))
    return MalformedRecordError(f"{field} is {first['input']!r:.60}: {first['msg']}")


def _positive(value: int | None) -> int | None:
    """A quantity for which TMDb's 0 means that nobody entered it."""
    return value if value and value > 0 else None


def _date(text: str | None) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise MalformedRecordError(f"release_date is {text!r:.60}, expected YYYY-MM-DD") from None


def _distinct(items: Iterable[Any]) -> list[Named]:
    """The items that have a name, each id once, in order."""
    found = {item["id"]: Named(item["id"], name) for item in items if (name := item.get("name"))}
    return list(found.values())


def _billing(member: _CastMember) -> float:
    order = member.get("order")
    return float("inf") if order is None else order


# -- columns ---------------------------------------------------------------------------------------


def _array(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """A column, from Python values."""
    if kind == NAMED:
        return pa.array([value and value._asdict() for value in values], NAMED)
    if not pa.types.is_list(kind) or kind.value_type != NAMED:
        return pa.array(values, kind)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(items) for items in values], out=offsets[1:])
    numbers, names = zip(*chain.from_iterable(values), strict=True) if offsets[-1] else ((), ())
    children = [pa.array(numbers, pa.int64()), pa.array(names, pa.string())]
    structs = pa.StructArray.from_arrays(children, fields=list(NAMED))
    return pa.ListArray.from_arrays(offsets, structs, type=kind)
