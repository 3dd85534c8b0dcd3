"""TMDb's JSON for one movie into one typed record: null for unknown, fixed types, bounded lists.

Source: https://developer.themoviedb.org/reference/movie-details with
``append_to_response=credits,keywords``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Final, Literal

Status = Literal["ok", "missing", "failed"]
Row = dict[str, Any]
"""A row of ``schemas.TMDB``."""

MAX_CAST: Final = 10
"""Names of the cast that are kept, in billing order."""

_INT64_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Named:
    """A person, keyword or collection."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class TmdbRecord:
    """What is known of one movie; the columns of ``schemas.TMDB`` without ``movie_id``."""

    tmdb_id: int | None
    status: Status
    fetched_at: datetime
    error: str | None = None
    budget: int | None = None
    revenue: int | None = None
    popularity: float | None = None
    vote_average: float | None = None
    vote_count: int | None = None
    runtime: int | None = None
    release_date: date | None = None
    original_language: str | None = None
    imdb_id: str | None = None
    genres: tuple[str, ...] = ()
    directors: tuple[Named, ...] = ()
    cast: tuple[Named, ...] = ()
    keywords: tuple[Named, ...] = ()
    collection: Named | None = None

    def row(self, movie_id: int) -> Row:
        """The row of ``schemas.TMDB`` for the MovieLens movie ``movie_id``."""
        return {"movie_id": movie_id, **asdict(self)}


def parse_movie(payload: Mapping[str, Any], fetched_at: datetime) -> TmdbRecord:
    """The record in TMDb's answer.

    Raises:
        ValueError: naming the field that is not of the documented type.
    """
    credits_ = _mapping(payload, "credits")
    return TmdbRecord(
        tmdb_id=_whole(payload, "id"),
        status="ok",
        fetched_at=fetched_at,
        budget=_positive(payload, "budget"),
        revenue=_positive(payload, "revenue"),
        popularity=_number(payload, "popularity"),
        vote_average=_number(payload, "vote_average") or None,
        vote_count=_whole(payload, "vote_count"),
        runtime=_positive(payload, "runtime", limit=2**31 - 1),
        release_date=_date(payload, "release_date"),
        original_language=_text(payload, "original_language"),
        imdb_id=_text(payload, "imdb_id"),
        genres=tuple(named.name for named in _named(_list(payload, "genres"), "genres")),
        directors=_named(
            (c for c in _list(credits_, "crew") if c.get("job") == "Director"), "crew"
        ),
        cast=_named(sorted(_list(credits_, "cast"), key=_billing), "cast", MAX_CAST),
        keywords=_named(_list(_mapping(payload, "keywords"), "keywords"), "keywords"),
        collection=_collection(payload),
    )


def _number(payload: Mapping[str, Any], name: str) -> float | None:
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise ValueError(f"{name} is {value!r:.60}, expected a number")
    if value != value:  # JSON has no NaN, Python's parser has
        raise ValueError(f"{name} is NaN, expected a number")
    return float(value)


def _whole(payload: Mapping[str, Any], name: str, limit: int = _INT64_MAX) -> int | None:
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > limit:
        raise ValueError(f"{name} is {value!r:.60}, expected a whole number of at most {limit}")
    return value


def _positive(payload: Mapping[str, Any], name: str, limit: int = _INT64_MAX) -> int | None:
    """A quantity for which TMDb's 0 means that nobody entered it."""
    value = _whole(payload, name, limit)
    return value if value is not None and value > 0 else None


def _text(payload: Mapping[str, Any], name: str) -> str | None:
    value = payload.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {value!r:.60}, expected a text")
    return value or None


def _date(payload: Mapping[str, Any], name: str) -> date | None:
    text = _text(payload, name)
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r:.60}, expected YYYY-MM-DD") from None


def _mapping(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = payload.get(name) or {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r:.60}, expected an object")
    return value


def _list(payload: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = payload.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError(f"{name} is {value!r:.60}, expected a list of objects")
    return value


def _named(
    items: Iterable[Mapping[str, Any]], name: str, limit: int | None = None
) -> tuple[Named, ...]:
    """The first ``limit`` distinct items that have a name, in order."""
    found: dict[int, Named] = {}
    for item in items:
        if len(found) == limit:
            break
        number, text = _whole(item, "id"), _text(item, "name")
        if number is None:
            raise ValueError(f"{name} holds an entry without id: {dict(item)!r:.60}")
        if text is not None:
            found.setdefault(number, Named(number, text))
    return tuple(found.values())


def _billing(member: Mapping[str, Any]) -> float:
    order = _number(member, "order")
    return float("inf") if order is None else order


def _collection(payload: Mapping[str, Any]) -> Named | None:
    collection = _mapping(payload, "belongs_to_collection")
    return next(iter(_named([collection], "belongs_to_collection")), None) if collection else None
