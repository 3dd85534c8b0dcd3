from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from foundation.schemas import TMDB
from ingest.tmdb.records import (
    MAX_CAST,
    MalformedRecordError,
    NotARecordError,
    TmdbRecord,
    decode_found,
    decode_movie,
    from_row,
    to_table,
    without_data,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FULL: dict[str, Any] = {
    "id": 19995,
    "imdb_id": "tt0499549",
    "budget": 237000000,
    "revenue": 2923706026,
    "popularity": 79.932,
    "vote_average": 8,
    "vote_count": 31000.0,
    "runtime": 162,
    "release_date": "2009-12-15",
    "original_language": "en",
    "genres": [{"id": 28, "name": "Action"}, {"id": 12, "name": "Adventure"}],
    "belongs_to_collection": {"id": 87096, "name": "Avatar Collection", "poster_path": None},
    "credits": {
        "cast": [
            {"id": 8691, "name": "Zoe Saldaña", "order": 1},
            {"id": 65731, "name": "Sam Worthington", "order": 0},
            {"id": 65731, "name": "Sam Worthington", "order": 2},
        ],
        "crew": [
            {"id": 1, "name": "A Writer", "job": "Screenplay"},
            {"id": 2710, "name": "James Cameron", "job": "Director"},
        ],
    },
    "keywords": {"keywords": [{"id": 1463, "name": "culture clash"}]},
}


def decode(payload: dict[str, Any]) -> TmdbRecord:
    return decode_movie(json.dumps(payload).encode(), payload["id"], NOW)


def test_a_full_record() -> None:
    record = decode(FULL)
    assert record.status == "ok"
    assert record.error is None
    assert (record.budget, record.revenue) == (237000000, 2923706026)
    assert (record.popularity, record.vote_average, record.vote_count) == (79.932, 8.0, 31000)
    assert isinstance(record.vote_average, float)
    assert isinstance(record.vote_count, int)
    assert (record.runtime, record.release_date) == (162, date(2009, 12, 15))
    assert record.genres == ("Action", "Adventure")
    assert record.directors == {2710: "James Cameron"}
    assert list(record.cast.items()) == [(65731, "Sam Worthington"), (8691, "Zoe Saldaña")]
    assert record.keywords == {1463: "culture clash"}
    assert record.collection == {87096: "Avatar Collection"}
    assert record.fetched_at == NOW


def test_unknown_values_are_null() -> None:
    sparse = {"id": 5, "budget": 0, "revenue": 0, "runtime": 0, "vote_average": 0.0,
              "vote_count": 0, "release_date": "", "imdb_id": "", "belongs_to_collection": None,
              "genres": None, "credits": None}  # fmt: skip
    record = decode(sparse)
    unknown = (record.budget, record.revenue, record.runtime, record.vote_average)
    assert unknown == (None, None, None, None)
    assert (record.release_date, record.imdb_id, record.collection) == (None, None, {})
    assert (record.genres, record.directors, record.cast, record.keywords) == ((), {}, {}, {})
    assert record.vote_count == 0  # known: there are no votes
    assert record.popularity is None


def test_the_cast_is_cut_in_billing_order() -> None:
    cast = [{"id": n, "name": f"Actor {n}", "order": n} for n in range(30)]
    record = decode({"id": 5, "credits": {"cast": cast[::-1]}})
    assert list(record.cast) == list(range(MAX_CAST))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget", "much"),
        ("budget", 1000.5),
        ("budget", 2**64),
        ("revenue", True),
        ("vote_count", 1e30),
        ("runtime", 2**31),
        ("popularity", "high"),
        ("release_date", "15.12.2009"),
        ("original_language", 5),
        ("genres", {"id": 1}),
        ("credits", [1]),
        ("keywords", {"keywords": [{"name": "no id"}]}),
    ],
)
def test_a_value_of_another_type_is_named(field: str, value: Any) -> None:
    with pytest.raises(MalformedRecordError, match=field):
        decode({"id": 5, field: value})


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"<html>", b'{"id": 6}', b"{}", b"null"])
def test_a_body_that_is_no_record(body: bytes) -> None:
    with pytest.raises(NotARecordError):
        decode_movie(body, 5, NOW)


def test_what_find_finds() -> None:
    assert decode_found(b'{"movie_results": [{"id": 7, "title": "x"}], "tv_results": []}') == 7
    assert decode_found(b'{"movie_results": []}') is None
    for body in (b"", b"{}", b'{"movie_results": [{}]}'):
        with pytest.raises(NotARecordError):
            decode_found(body)


def test_rows_become_a_sorted_table_and_come_back() -> None:
    rows = [
        (3, decode(FULL)),
        (1, decode({"id": 6})),
        (2, without_data(None, "missing", "no id", NOW)),
    ]
    table = to_table(rows)
    table.validate(full=True)
    assert table.schema.equals(TMDB, check_metadata=True)
    assert table["movie_id"].to_pylist() == [1, 2, 3]
    back = [(row["movie_id"], from_row(row)) for row in table.to_pylist()]
    assert back[2] == rows[0]
    assert to_table(back).equals(table)
    assert TmdbRecord._fields == tuple(TMDB.names[1:])
