"""Odd answers of TMDb become records that can be stored, or are no records."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest.tmdb.records import (
    LIMITS,
    NotARecordError,
    TmdbRecord,
    decode_found,
    decode_movie,
    to_table,
)
from tests.fuzz.mutation import Damage, damaged, damages

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MOVIE: dict[str, Any] = {
    "id": 5,
    "imdb_id": "tt0499549",
    "budget": 237000000,
    "revenue": 2923706026,
    "popularity": 79.932,
    "vote_average": 8,
    "vote_count": 31000,
    "runtime": 162,
    "release_date": "2009-12-15",
    "original_language": "en",
    "genres": [{"id": 28, "name": "Action"}],
    "belongs_to_collection": {"id": 87096, "name": "Avatar Collection"},
    "credits": {
        "cast": [{"id": 8691, "name": "Zoe Saldaña", "order": 1}],
        "crew": [{"id": 2710, "name": "James Cameron", "job": "Director"}],
    },
    "keywords": {"keywords": [{"id": 1463, "name": "culture clash"}]},
}

ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(),
        st.sampled_from(["id", "name", "\ud800", "1e999", "2009-13-45"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["id", "name", "job", "order", "cast", "keywords"]), st.text()
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


def usable(body: bytes) -> None:
    with suppress(NotARecordError):
        record: TmdbRecord = decode_movie(body, 5, NOW)
        to_table([(1, record)]).validate(full=True)
        for name, limits in LIMITS.items():
            value = getattr(record, name)
            assert value is None or limits.lowest <= value <= limits.highest
        assert record.error is None or len(record.error) <= 500
    with suppress(NotARecordError):
        found = decode_found(body)
        assert found is None or 0 < found < 2**63


@given(changes=damages())
def test_damaged_bytes(changes: list[Damage]) -> None:
    usable(damaged(json.dumps(MOVIE, ensure_ascii=False).encode(), changes))


@given(field=st.sampled_from(sorted(MOVIE)), value=ANYTHING)
def test_a_field_of_any_kind(field: str, value: Any) -> None:
    usable(json.dumps(MOVIE | {field: value}).encode())
    for ascii_only in (True, False):
        body = json.dumps(MOVIE | {field: [value]}, ensure_ascii=ascii_only)
        usable(body.encode("utf-8", "surrogatepass"))


@given(value=ANYTHING)
def test_any_json(value: Any) -> None:
    usable(json.dumps(value).encode())
    usable(json.dumps({"movie_results": value}).encode())
