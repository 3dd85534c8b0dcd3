"""Raw tables to prepared ones, through a Ray that is started for this module alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import fs

from foundation.schemas import MOVIES, NAMES, RATINGS, TMDB
from ncf.config import (
    FeaturesConfig,
    SplitConfig,
    SplitFiles,
    TimeDecayConfig,
)
from ncf.data.dataset import Manifest, PreparedDataset
from ncf.data.prepare import PreparationConfig, prepare
from ncf.errors import DataError

pytestmark = pytest.mark.ray(seconds=60)

DAY = 86_400
LOCAL = fs.LocalFileSystem()
CONFIG = PreparationConfig(
    SplitConfig(kind="global-time", test=0.2, validation=0.1),
    FeaturesConfig(numeric=("budget", "year"), transform="none"),
    TimeDecayConfig(rate_per_day=0.1),
)

# Twenty ratings of the days 0 to 19, in another order in the file: days 16 to 19 are for testing,
# 14 and 15 for validation. User 999 and movie 77 turn up on the last day only.
DAYS = [(7 * row) % 20 for row in range(20)]
LARGE = 2**63 - 1  # a floating number cannot hold it
USERS = [999 if day == 19 else (100, 5, LARGE)[day % 3] for day in DAYS]
MOVIE_IDS = [77 if day == 19 else (30, 10, 20, 40)[day % 4] for day in DAYS]
STARS = [0.5 + day % 9 / 2 for day in DAYS]
TITLES = {10: "Ten (1995)", 20: "Twenty", 30: "Thirty (1987)", 40: "Forty", 77: "New (2003)"}
YEARS = {10: 1995, 30: 1987, 77: 2003}
GENRES = {10: ["War", "Comedy"], 20: [], 30: ["War"], 40: ["Drama"], 77: ["Noir", "War"]}
# Of the movies with a training rating: median 300, mean 400, variance (9 + 1 + 16) e4 / 3.
BUDGETS = {10: 100, 20: 300, 30: None, 40: 800, 77: 10**9}


@pytest.fixture(scope="module", autouse=True)
def _ray(local_ray: None) -> None:
    """Every test here needs it."""


def write_raw(folder: Path, stars: list[float], *, with_tmdb: bool = True) -> Path:
    folder.mkdir(parents=True)
    columns = zip(USERS, MOVIE_IDS, stars, DAYS, strict=True)
    ratings = [
        {"row": row, "user_id": user, "movie_id": movie, "rating": rating, "timestamp": day * DAY}
        for row, (user, movie, rating, day) in enumerate(columns)
    ]
    pq.write_table(pa.Table.from_pylist(ratings, schema=RATINGS), folder / "ratings.parquet")
    # Not sorted by id: nothing may depend on that.
    movies = [
        {"movie_id": i, "title": TITLES[i], "year": YEARS.get(i), "genres": GENRES[i]}
        for i in (40, 10, 77, 30, 20)
    ]
    pq.write_table(pa.Table.from_pylist(movies, schema=MOVIES), folder / "movies.parquet")
    if with_tmdb:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        empty: dict[str, Any] = {"genres": [], "directors": [], "cast": [], "keywords": []}
        records = [
            {"movie_id": i, "status": "ok", "budget": budget, "fetched_at": now, **empty}
            for i, budget in sorted(BUDGETS.items())
        ]
        records[1]["release_date"] = date(1999, 12, 31)  # of movie 20, whose title has no year
        pq.write_table(pa.Table.from_pylist(records, schema=TMDB), folder / "tmdb.parquet")
    return folder


def prepared_from(raw: Path, folder: Path, config: PreparationConfig = CONFIG) -> PreparedDataset:
    return prepare((LOCAL, str(raw)), (LOCAL, str(folder)), config, "the-fingerprint")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw") / "set", STARS)


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepared_from(raw, tmp_path_factory.mktemp("prepared"))


def all_rows(prepared: PreparedDataset, split: str) -> pa.Table:
    columns = ["row", "user_id", "user_index", "movie_index", "rating", "weight", "timestamp"]
    files = Path(prepared.folder) / "ratings" / f"split={split}"
    return pq.read_table(files, partitioning=None).select(columns).sort_by("row")


# -- values ----------------------------------------------------------------------------------------


def test_every_row_is_in_its_split_with_the_joined_values_by_hand(
    prepared: PreparedDataset,
) -> None:
    # Training users 5, 100, LARGE become 1, 2, 3; the catalogue is 10, 20, 30, 40, 77.
    user_index = {5: 1, 100: 2, LARGE: 3, 999: 0}
    movie_index = {10: 0, 20: 1, 30: 2, 40: 3, 77: 4}
    splits = {"train": range(14), "validation": range(14, 16), "test": range(16, 20)}
    for split, days in splits.items():
        rows = [row for row, day in enumerate(DAYS) if day in days]
        table = all_rows(prepared, split)
        assert table["row"].to_pylist() == rows
        assert table["user_id"].to_pylist() == [USERS[row] for row in rows]
        assert table["user_index"].to_pylist() == [user_index[USERS[row]] for row in rows]
        assert table["movie_index"].to_pylist() == [movie_index[MOVIE_IDS[row]] for row in rows]
        assert table["rating"].to_pylist() == [STARS[row] for row in rows]
        assert table["timestamp"].to_pylist() == [DAYS[row] * DAY for row in rows]
        # The newest training rating is of day 13; what is newer weighs 1.
        weights = [exp(-0.1 * max(13 - DAYS[row], 0)) for row in rows]
        np.testing.assert_allclose(table["weight"].to_numpy(), weights, rtol=1e-6)


def test_columns_have_their_types(prepared: PreparedDataset) -> None:
    types = {field.name: str(field.type) for field in all_rows(prepared, "train").schema}
    assert types == {
        "row": "int64",
        "user_id": "int64",
        "user_index": "int32",
        "movie_index": "int32",
        "rating": "float",
        "weight": "float",
        "timestamp": "int64",
    }


def test_the_movie_table_by_hand(prepared: PreparedDataset) -> None:
    preprocessor, movies = prepared.preprocessor, prepared.preprocessor.movies
    assert movies.ids.tolist() == [10, 20, 30, 40, 77]
    assert movies.titles == ("Ten (1995)", "Twenty", "Thirty (1987)", "Forty", "New (2003)")
    assert preprocessor.genres == ("Comedy", "Drama", "War")
    assert movies.genres.astype(int).tolist() == [
        [1, 0, 1],
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 0],
        [0, 0, 1],
    ]
    assert preprocessor.decades == (1980, 1990)
    assert movies.decade.tolist() == [2, 2, 1, 0, 0]
    assert movies.embedding_index.tolist() == [1, 2, 3, 4, 0]
    # Days 0 to 13 have movies 30, 10, 20, 40 in turn.
    assert movies.train_counts.tolist() == [4, 3, 4, 3, 0]
    assert preprocessor.numeric_names == ("budget", "year", "budget_missing", "year_missing")
    budget = (np.array([100, 300, 300, 800, 1e9]) - 400) / np.sqrt(26e4 / 3)
    np.testing.assert_allclose(movies.numeric[:, 0], budget, rtol=1e-6)
    # Years 1995, 1999, 1987: median 1995, mean 1993 2/3, deviations 4/3, 16/3, -20/3.
    year = (np.array([1995, 1999, 1987, 1995, 2003]) - 5981 / 3) / np.sqrt(672 / 27)
    np.testing.assert_allclose(movies.numeric[:, 1], year, rtol=1e-5)
    assert movies.numeric[:, 2:].tolist() == [[0, 0], [0, 0], [1, 0], [0, 1], [0, 0]]


def test_the_state_and_the_manifest_by_hand(prepared: PreparedDataset) -> None:
    preprocessor, manifest = prepared.preprocessor, prepared.manifest
    assert preprocessor.user_ids.tolist() == [5, 100, LARGE]
    training = [stars for stars, day in zip(STARS, DAYS, strict=True) if day < 14]
    assert preprocessor.rating_mean == pytest.approx(sum(training) / 14)
    assert (preprocessor.rating_min, preprocessor.rating_max) == (0.5, 4.5)
    assert preprocessor.decay_reference == 13 * DAY
    assert manifest.counts == {"train": 14, "validation": 2, "test": 4}
    assert (manifest.num_users, manifest.num_movies) == (3, 4)
    assert manifest.fingerprint == "the-fingerprint"


def test_a_split_comes_back_as_tensors_in_file_order(prepared: PreparedDataset) -> None:
    batch = prepared.rows("test")
    assert batch is not None
    rows = [row for row, day in enumerate(DAYS) if day >= 16]
    assert torch.equal(batch.ratings, torch.tensor([STARS[row] for row in rows]))
    assert batch.users.dtype == batch.movies.dtype == torch.int32


def test_rows_come_in_file_order_whatever_file_they_are_in(tmp_path: Path) -> None:
    folder = tmp_path / "ratings" / "split=test"
    folder.mkdir(parents=True)
    prepared = PreparedDataset(LOCAL, str(tmp_path), Manifest("", {"test": 6}, 1, 1))

    def order(*files: list[int]) -> list[int]:
        for name, rows in enumerate(files):
            values = {"row": rows, "timestamp": [100 + row for row in rows]}
            pq.write_table(pa.table(values), folder / f"{name}.parquet")
        return prepared.table("test", ["timestamp"])["timestamp"].to_pylist()

    assert order([5, 8, 9], [0, 1, 3]) == [100, 101, 103, 105, 108, 109]
    assert order([1, 5, 9], [0, 3, 8]) == [100, 101, 103, 105, 108, 109]
    assert order([9, 5, 8], [3, 0, 1]) == [100, 101, 103, 105, 108, 109]


# -- invariances -----------------------------------------------------------------------------------


def test_many_blocks_give_the_same_as_one(
    prepared: PreparedDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_same: Callable[[Any, Any], None],
) -> None:
    # One row a block, so that some blocks hold no training row at all.
    raw = write_raw(tmp_path / "raw", STARS)
    ratings = raw / "ratings.parquet"
    pq.write_table(pq.read_table(ratings), ratings, row_group_size=3)
    monkeypatch.setattr("ncf.data.prepare._ROWS_PER_BLOCK", 1)
    parted = prepared_from(raw, tmp_path / "prepared")
    assert len(list((tmp_path / "prepared" / "ratings").rglob("*.parquet"))) == 20
    assert_same(parted.preprocessor, prepared.preprocessor)
    assert parted.manifest == prepared.manifest
    for split in ("train", "validation", "test"):
        assert all_rows(parted, split).equals(all_rows(prepared, split))
        batches = parted.rows(split), prepared.rows(split)
        assert batches[0] is not None
        assert batches[1] is not None
        assert torch.equal(batches[0].ratings, batches[1].ratings)


# -- variants --------------------------------------------------------------------------------------


def test_for_the_final_model_validation_rows_are_training_rows(raw: Path, tmp_path: Path) -> None:
    prepared = prepared_from(raw, tmp_path, replace(CONFIG, train_on_validation=True))
    assert prepared.manifest.counts == {"train": 16, "validation": 0, "test": 4}
    assert prepared.rows("validation") is None
    assert prepared.preprocessor.decay_reference == 15 * DAY
    assert all_rows(prepared, "train")["row"].to_pylist() == [
        row for row, day in enumerate(DAYS) if day < 16
    ]


def test_without_tmdb_the_features_of_movielens_remain(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", STARS, with_tmdb=False)
    prepared = prepared_from(raw, tmp_path / "prepared")
    assert prepared.preprocessor.numeric_names == ("year", "year_missing")
    assert prepared.preprocessor.movies.numeric.shape == (5, 2)


def test_ids_that_are_texts_travel_with_the_preprocessor(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", STARS, with_tmdb=False)
    names = [[*range(1, 100)], [f"m{number}" for number in range(1, 100)]]
    pq.write_table(pa.table(names, schema=NAMES), raw / "movie_names.parquet")
    fitted = prepared_from(raw, tmp_path / "prepared").preprocessor
    assert fitted.movies.external_ids == ("m10", "m20", "m30", "m40", "m77")
    assert fitted.external_user_ids is None


def test_a_tmdb_table_that_is_there_but_not_wanted_is_not_used(
    raw: Path, tmp_path: Path, assert_same: Callable[[Any, Any], None]
) -> None:
    unwanted = prepared_from(raw, tmp_path / "unwanted", replace(CONFIG, use_tmdb=False))
    bare = write_raw(tmp_path / "raw", STARS, with_tmdb=False)
    assert_same(unwanted.preprocessor, prepared_from(bare, tmp_path / "absent").preprocessor)


def test_what_prepared_files_depend_on_changes_the_hash_and_nothing_else_does() -> None:
    def changed(**parts: Any) -> bool:
        return replace(CONFIG, **parts).as_dict() != CONFIG.as_dict()

    assert not changed()
    assert not changed(time_decay=TimeDecayConfig(rate_per_day=0.1, apply_to="target"))
    assert changed(time_decay=TimeDecayConfig(rate_per_day=0.2))
    assert changed(split=SplitConfig(kind="global-time", seed=1))
    assert changed(features=FeaturesConfig(numeric=("budget",)))
    assert changed(train_on_validation=True)
    assert changed(use_tmdb=False)
    assert not changed(split_folder="elsewhere")


def test_a_split_that_files_list_is_prepared_as_they_say(tmp_path: Path) -> None:
    """Four users rate five movies each; every second row is for testing."""
    raw, rows = write_raw(tmp_path / "raw", STARS), range(20)
    users, movies = [LARGE - row // 5 for row in rows], sorted(TITLES) * 4
    table = pq.read_table(raw / "ratings.parquet").to_pydict()
    table |= {"user_id": users, "movie_id": movies}
    pq.write_table(pa.table(table, schema=RATINGS), raw / "ratings.parquet")
    for name, chosen in (("base", rows[::2]), ("held", rows[1::2])):
        lines = [f"{users[row]}\t{movies[row]}\t3\t0\n" for row in chosen]
        (tmp_path / name).write_text("".join(lines))
    split = SplitConfig(
        kind="files", files=SplitFiles(train=("base",), test=("held",)), validation=0.1
    )
    config = replace(CONFIG, split=split, split_folder=str(tmp_path))

    prepared = prepared_from(raw, tmp_path / "prepared", config)

    assert prepared.manifest.counts == {"train": 8, "validation": 2, "test": 10}
    assert all_rows(prepared, "test")["row"].to_pylist() == list(rows[1::2])
    trained = all_rows(prepared, "train")["row"].to_pylist()
    validated = all_rows(prepared, "validation")["row"].to_pylist()
    assert sorted([*trained, *validated]) == list(rows[::2])
    assert prepared.preprocessor.user_ids.tolist() == sorted({users[row] for row in trained})

    before = config.as_dict()
    (tmp_path / "held").write_text((tmp_path / "held").read_text() + "\n")
    assert config.as_dict() != before


# -- refusals --------------------------------------------------------------------------------------


def stamp(file: Path, version: str) -> None:
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({"schema_version": version}), file)


@pytest.mark.parametrize("name", ["ratings", "movies", "tmdb"])
def test_a_table_of_another_schema_version_is_refused(name: str, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", STARS)
    stamp(raw / f"{name}.parquet", "0")
    with pytest.raises(DataError, match=f"{name}.parquet has schema version 0"):
        prepared_from(raw, tmp_path / "prepared")


@pytest.mark.parametrize("name", ["ratings", "movies"])
@pytest.mark.parametrize("content", [None, b"", b"no Parquet"])
def test_a_missing_or_damaged_table_is_refused(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    raw = write_raw(tmp_path / "raw", STARS)
    (raw / f"{name}.parquet").unlink()
    if content is not None:
        (raw / f"{name}.parquet").write_bytes(content)
    with pytest.raises(DataError, match=f"cannot read .*{name}.parquet.* Run the ingest stage"):
        prepared_from(raw, tmp_path / "prepared")


@pytest.mark.parametrize("missing", [20, 77])
def test_a_rated_movie_without_an_entry_is_refused(missing: int, tmp_path: Path) -> None:
    """Movie 77 is rated on the last day only, which is for testing."""
    raw = write_raw(tmp_path / "raw", STARS)
    movies = pq.read_table(raw / "movies.parquet")
    kept = movies.filter(pa.array([i != missing for i in movies["movie_id"].to_pylist()]))
    pq.write_table(kept, raw / "movies.parquet")
    with pytest.raises(DataError, match=str(missing)):
        prepared_from(raw, tmp_path / "prepared")
    with pytest.raises(DataError, match="holds no prepared data"):
        PreparedDataset.open(LOCAL, str(tmp_path / "prepared"))


def test_a_folder_without_a_manifest_is_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no prepared data .* Run the preprocess stage"):
        PreparedDataset.open(LOCAL, str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", '{"fingerprint": "x"}', "[1]"])
def test_a_damaged_manifest_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match="holds no prepared data"):
        PreparedDataset.open(LOCAL, str(tmp_path))
