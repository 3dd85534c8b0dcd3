from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from foundation.schemas import MOVIES, RATINGS, TAGS, TMDB
from ncf.data import card
from ncf.data.card import Coverage, RatingCounts, coverage

LOCAL = fs.LocalFileSystem()


def moment(year: int) -> int:
    return int(datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


@pytest.fixture
def folder(tmp_path: Path) -> str:
    ratings = [(7, 10, 4.0, 2001), (7, 30, 0.5, 1999), (3, 10, 4.0, 2001), (9, 10, 3.5, 2003)]
    write(
        tmp_path / "ratings.parquet",
        RATINGS,
        [
            {"row": i, "user_id": u, "movie_id": m, "rating": r, "timestamp": moment(y)}
            for i, (u, m, r, y) in enumerate(ratings)
        ],
    )
    write(
        tmp_path / "movies.parquet",
        MOVIES,
        [
            {"movie_id": 10, "title": "A (1990)", "year": 1990, "genres": ["Drama"]},
            {"movie_id": 20, "title": "B", "year": None, "genres": ["Drama", "War"]},
            {"movie_id": 30, "title": "C (1991)", "year": 1991, "genres": []},
        ],
    )
    tags = [(1, 30, "slow"), (2, 30, "dull"), (1, 20, "fun")]
    write(
        tmp_path / "tags.parquet",
        TAGS,
        [{"user_id": u, "movie_id": m, "tag": t, "timestamp": 0} for u, m, t in tags],
    )
    return str(tmp_path)


def write(file: Path, schema: pa.Schema, rows: list[dict[str, object]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


def add_tmdb(folder: str) -> None:
    nothing = dict.fromkeys(TMDB.names) | {"genres": [], "cast": [], "keywords": []}
    common = nothing | {"fetched_at": datetime(2025, 3, 1, tzinfo=UTC)}
    person = [{"id": 5, "name": "Somebody"}]
    rows = [
        {"movie_id": 10, "status": "ok", "budget": 100, "runtime": 90, "directors": person},
        {"movie_id": 20, "status": "missing", "directors": []},
        {"movie_id": 30, "status": "ok", "budget": None, "runtime": 80, "directors": person},
    ]
    write(Path(folder) / "tmdb.parquet", TMDB, [common | row for row in rows])


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_ratings_are_counted_whatever_the_batches(
    folder: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "_BATCH", batch)

    counts = RatingCounts.of(LOCAL, folder)

    assert (counts.first, counts.last) == (moment(1999), moment(2003))
    assert list(counts.by_stars.items()) == [(0.5, 1), (3.5, 1), (4.0, 2)]
    assert list(counts.by_year.items()) == [(1999, 1), (2001, 2), (2003, 1)]
    np.testing.assert_array_equal(counts.per_user, [1, 2, 1])  # users 3, 7, 9
    np.testing.assert_array_equal(counts.movie_ids, [10, 30])
    np.testing.assert_array_equal(counts.per_movie, [3, 1])


def test_coverage_counts_movies_and_their_ratings(folder: str) -> None:
    counts = RatingCounts.of(LOCAL, folder)
    without = coverage(LOCAL, folder, counts, use_tmdb=False)
    assert without == (Coverage("year", 2, 4), Coverage("genres", 2, 3), Coverage("tags", 2, 1))

    add_tmdb(folder)
    found = {c.name: c for c in coverage(LOCAL, folder, counts, use_tmdb=True)}
    assert coverage(LOCAL, folder, counts, use_tmdb=False) == without
    assert found["budget"] == Coverage("budget", 1, 3)
    assert found["runtime"] == Coverage("runtime", 2, 4)
    assert found["revenue"] == Coverage("revenue", 0, 0)
    assert found["directors"] == Coverage("directors", 2, 4)
    assert found["cast"] == Coverage("cast", 0, 0)
    assert list(found) == [
        *("year", "genres", "tags", "budget", "revenue", "popularity", "vote_average"),
        *("vote_count", "runtime", "release_date", "directors", "cast", "keywords"),
    ]
