from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from foundation.schemas import TMDB
from ingest.tmdb.records import (
    MAX_CAST,
    MAX_NAMES,
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
    cast = [{"id": n, "name": f"Actor {n}", "order": n} for n in range(1, 31)]
    record = decode({"id": 5, "credits": {"cast": cast[::-1]}})
    assert list(record.cast) == list(range(1, 1 + MAX_CAST))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget", "1000000"),
        ("budget", 1000.5),
        ("budget", 2**64),
        ("budget", 999),
        ("budget", -5),
        ("budget", 2_000_000_001),
        ("revenue", True),
        ("revenue", 1),
        ("revenue", 20_000_000_001),
        ("vote_count", 1e30),
        ("vote_count", -1),
        ("vote_average", 10.5),
        ("vote_average", -1),
        ("runtime", 2**31),
        ("runtime", 90.5),
        ("runtime", "90"),
        ("popularity", "high"),
        ("popularity", -0.1),
        ("release_date", "15.12.2009"),
        ("release_date", "1999"),
        ("release_date", "0001-01-01"),
        ("release_date", "9999-12-31"),
        ("release_date", 1999),
        ("original_language", 5),
        ("imdb_id", "tt\ud800"),
        ("imdb_id", "../etc"),
        ("original_language", "\x1b[31m"),
        ("original_language", "x" * 1000),
        ("release_date", "2020-W01-1"),
        ("genres", {"id": 1}),
        ("credits", [1]),
    ],
)
def test_a_value_that_cannot_be_becomes_null_and_is_noted(field: str, value: Any) -> None:
    record = decode(FULL | {field: value})
    assert record.status == "ok"
    assert record.error is not None
    assert record.error.startswith(f"left out: {field}: ")
    full = decode(FULL)._asdict()
    nothing: dict[str, Any] = {"genres": (), "directors": {}, "cast": {}}
    for name, found in record._asdict().items():
        if name == field or (field == "credits" and name in ("directors", "cast")):
            assert found == nothing.get(name)
        elif name != "error":
            assert found == full[name], name
    to_table([(1, record)]).validate(full=True)


@pytest.mark.parametrize(
    ("field", "value"), [("budget", 1000), ("revenue", 2_923_706_026), ("vote_average", 10)]
)
def test_the_limits_themselves_can_be(field: str, value: float) -> None:
    record = decode(FULL | {field: value})
    assert (record._asdict()[field], record.error) == (value, None)


@pytest.mark.parametrize("wrong", [2**63, 0, -1, 1.5, "7", None])
def test_a_person_or_keyword_with_an_impossible_id_is_left_out(wrong: Any) -> None:
    credits_ = {
        "cast": [{"id": wrong, "name": "A", "order": 0}, {"id": 2, "name": "B", "order": 1}],
        "crew": [{"id": wrong, "name": "A", "job": "Director"}],
    }
    keywords = {"keywords": [{"id": wrong, "name": "a"}, {"id": 3, "name": "b"}]}
    collection = {"id": wrong, "name": "A Collection"}
    record = decode(
        FULL | {"credits": credits_, "keywords": keywords, "belongs_to_collection": collection}
    )
    assert (record.cast, record.directors) == ({2: "B"}, {})
    assert (record.keywords, record.collection) == ({3: "b"}, {})
    assert record.budget == FULL["budget"]
    assert record.error is not None
    for name in ("credits", "keywords", "belongs_to_collection"):
        assert f"{name}: " in record.error
    to_table([(1, record)]).validate(full=True)


def test_a_stray_byte_costs_the_text_it_is_in() -> None:
    body = json.dumps(FULL, ensure_ascii=False).encode()
    record = decode_movie(body.replace("ñ".encode(), b"\xf1"), FULL["id"], NOW)
    assert list(record.cast.values()) == ["Sam Worthington"]
    assert record.budget == FULL["budget"]
    assert record.error is not None


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "9" * 5000])
def test_numbers_that_are_none_become_null(number: str) -> None:
    body = json.dumps(FULL).replace("79.932", number).encode()
    if number == "9" * 5000:  # Python refuses to convert it
        with pytest.raises(NotARecordError):
            decode_movie(body, FULL["id"], NOW)
        return
    record = decode_movie(body, FULL["id"], NOW)
    assert (record.popularity, record.budget) == (None, FULL["budget"])


def test_names_are_cleaned_and_lists_have_a_limit() -> None:
    names = ["Action", "  ", "a\0b", "", None, "x" * 1000, "New\u00a0York", "علی\u200cرضا"]
    crew = [{"id": n, "name": f"Director {n}", "job": "Director"} for n in range(1, 5_000)]
    genres = [{"id": n + 1, "name": name} for n, name in enumerate(names)]
    record = decode(FULL | {"genres": genres, "credits": {"crew": crew, "cast": []}})
    assert record.genres == ("Action", "ab", "x" * 300, "New York", "علی‌رضا")
    assert list(record.directors) == list(range(1, 1 + MAX_NAMES))


@pytest.mark.parametrize("depth", [10, 400, 700, 900, 1_500, 100_000])
@pytest.mark.parametrize("field", ["extra", "genres", "credits", "popularity"])
def test_deep_nesting_is_no_record_or_costs_the_field(field: str, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    body = json.dumps(FULL | {field: 0}).replace(f'"{field}": 0', f'"{field}": {deep}').encode()
    try:
        record = decode_movie(body, FULL["id"], NOW)
    except NotARecordError:
        return
    assert record.budget == FULL["budget"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"<html>", b'{"id": 6}', b"{}", b"null"])
def test_a_body_that_is_no_record(body: bytes) -> None:
    with pytest.raises(NotARecordError):
        decode_movie(body, 5, NOW)


def test_what_find_finds() -> None:
    assert decode_found(b'{"movie_results": [{"id": 7, "title": "x"}], "tv_results": []}') == 7
    assert decode_found(b'{"movie_results": []}') is None
    for body in (
        b"",
        b"{}",
        b'{"movie_results": [{}]}',
        b'{"movie_results": [{"id": 9223372036854775808}]}',
        b'{"movie_results": [{"id": -3}]}',
        b'{"movie_results": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ):
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
