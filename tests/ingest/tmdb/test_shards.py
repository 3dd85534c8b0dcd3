from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from foundation import hashing
from foundation.errors import StorageError
from foundation.storage import Storage
from ingest.tmdb import shards as module
from ingest.tmdb.records import Row, Status, without_data
from ingest.tmdb.shards import Shards, Standing

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def row(movie: int, status: Status = "ok", age: float = 0.0, budget: int | None = None) -> Row:
    error = None if status == "ok" else "why"
    record = without_data(movie, status, error or "", DAY - timedelta(days=age))
    return movie, record._replace(error=error, budget=budget)


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage.at(tmp_path)


@pytest.fixture
def shards(folder: Storage) -> Shards:
    return Shards(folder)


def standing(shards: Shards, *ids: int) -> Standing:
    return shards.standing(np.array(ids), now=DAY, max_age_days=10, look_up=True)


def ids(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def test_how_movies_stand(shards: Shards) -> None:
    shards.write([row(3), row(1, age=11)])
    shards.write([row(2, "failed"), row(4, "missing"), row(5, "missing", age=11)])
    found = standing(shards, 1, 2, 3, 4, 5, 6)
    assert found.fresh.tolist() == [3, 4]
    assert found.stale.tolist() == [1, 5]
    assert found.failed.tolist() == [2]
    assert found.untried.tolist() == [6]
    assert found.pending.tolist() == [1, 2, 5, 6]
    assert shards.coverage() == {"ok": 2, "missing": 2, "failed": 1}
    assert shards.failures() == {2: "why"}
    assert shards.oldest() == DAY - timedelta(days=11)


def test_records_of_a_clock_that_was_ahead_are_stale(shards: Shards) -> None:
    shards.write([row(1, age=-1), row(2, "missing", age=-400), row(3)])
    found = standing(shards, 1, 2, 3)
    assert found.fresh.tolist() == [3]
    assert found.stale.tolist() == [1, 2]


def test_every_record_is_stale_if_all_are_fetched_again(shards: Shards) -> None:
    shards.write([row(1, age=-1), row(2), row(3, "missing", age=3)])
    found = shards.standing(ids(1, 2, 3), now=DAY, max_age_days=0.0, look_up=True)
    assert found.stale.tolist() == [1, 2, 3]


def test_a_record_from_the_future_is_replaced_by_the_next_one(shards: Shards) -> None:
    shards.write([row(1, age=-400, budget=1)])
    assert shards.merge(ids(1))
    shards.write([row(1, budget=2)])
    assert shards.merge(ids(1))
    assert [record.budget for record in shards.records_of({1}).values()] == [2]
    assert standing(shards, 1).fresh.tolist() == [1]


def test_nothing_at_all(shards: Shards) -> None:
    assert standing(shards, 1).untried.tolist() == [1]
    assert shards.coverage() == {"ok": 0, "missing": 0, "failed": 0}
    assert shards.oldest() is None
    assert not shards.merge(ids(1))


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([row(1, age=9, budget=1), row(1, age=3, budget=2)], 2),
        ([row(1, age=9, budget=1), row(1, "failed", age=3)], 1),
        ([row(1, "failed", age=9), row(1, age=9, budget=1)], 1),
        ([row(1, age=9, budget=1), row(1, "missing", age=3)], None),
        ([row(1, "missing", age=9), row(1, "failed", age=3)], None),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_which_row_counts(
    shards: Shards, folder: Storage, rows: list[Row], counts: int | None, turned: bool
) -> None:
    for one in reversed(rows) if turned else rows:
        shards.write([one])
    assert shards.merge(ids(1))
    (found,) = (folder / "tmdb.parquet").read_table().to_pylist()
    assert found["budget"] == counts
    assert found["status"] != "failed"


def test_merging_many_files_piece_by_piece(
    shards: Shards, folder: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_A_TIME", 7)
    rng = np.random.default_rng(0)
    order = rng.permutation(100).tolist()
    for start in range(0, 100, 13):
        shards.write([row(movie, budget=movie + 1) for movie in order[start : start + 13]])
    assert not shards.merge(ids(*range(101)))
    assert shards.has_parts()
    assert shards.merge(ids(*range(100)))
    assert not shards.has_parts()
    shards.write([row(movie, age=-1, budget=1000 + movie) for movie in range(0, 100, 3)])
    assert shards.merge(ids(*range(100)))
    table = (folder / "tmdb.parquet").read_table()
    assert table["movie_id"].to_pylist() == list(range(100))
    assert table["budget"].to_pylist() == [
        1000 + movie if movie % 3 == 0 else movie + 1 for movie in range(100)
    ]


def test_a_merge_keeps_only_the_movies_of_the_data_set(shards: Shards, folder: Storage) -> None:
    shards.write([row(1), row(2), row(3)])
    assert shards.merge(ids(1, 3))
    assert (folder / "tmdb.parquet").read_table()["movie_id"].to_pylist() == [1, 3]


def test_rows_by_tmdb_id(shards: Shards) -> None:
    shards.write([row(1, budget=5), row(2), row(3, "missing")])
    found = shards.records_of({1, 3, 9})
    assert {tmdb_id: record.budget for tmdb_id, record in found.items()} == {1: 5}
    assert found[1] == row(1, budget=5)[1]


def test_forget(shards: Shards) -> None:
    shards.write([row(1), row(2)])
    shards.merge(ids(1, 2))
    shards.write([row(3)])
    shards.forget(ids(2, 3))
    assert standing(shards, 1, 2, 3).untried.tolist() == [2, 3]
    assert len(shards.files()) == 1


def test_purge_and_sweep(shards: Shards, folder: Storage) -> None:
    shards.write([row(1)])
    shards.merge(ids(1))
    shards.write([row(2)])
    halves = ["tmdb.parts/.x.parquet.1.part", ".tmdb.parquet.2.part", ".ratings.parquet.3.part"]
    for half in halves:
        (folder / half).write_bytes(b"half")
    shards.sweep()
    assert [(folder / half).exists() for half in halves] == [False, False, True]
    assert shards.purge() == 2
    assert not shards.files()


def test_a_damaged_file_is_named(shards: Shards, folder: Storage) -> None:
    (folder / "tmdb.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(StorageError, match=r"tmdb\.parquet as Parquet.*Delete that file"):
        shards.coverage()


@pytest.mark.parametrize("shape", [lambda t: t, lambda t: pa.concat_tables([t[:2], t[2:]])])
def test_the_fingerprint_is_of_the_content(
    folder: Storage, shape: Callable[[pa.Table], pa.Table]
) -> None:
    shards = Shards(folder)
    shards.write([row(n, budget=n) for n in range(1, 6)])
    (part,) = shards.files()
    table = part.read_table()
    original = hashing.of_file(part, table.schema.names)
    (folder / "other").write_table(shape(table))
    assert hashing.of_file(folder / "other", table.schema.names) == original
    nulled = table.to_pandas()
    nulled.loc[3, "budget"] = None
    changed = pa.Table.from_pandas(nulled, schema=table.schema, preserve_index=False)
    (folder / "changed").write_table(changed)
    assert hashing.of_file(folder / "changed", table.schema.names) != original
