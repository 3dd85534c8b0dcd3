from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foundation.errors import ConfigError
from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS, TMDB, check_schema
from foundation.storage import Storage
from ingest.config import DataConfig, SyntheticConfig, TmdbConfig
from ingest.dataset import RawData, ingest
from ingest.sources.synthetic import SyntheticData, SyntheticTmdb, draw_pairs


def generate(folder: Path, **shape: Any) -> RawData:
    data = DataConfig(source="synthetic", synthetic=SyntheticConfig(**shape))
    return ingest(data, TmdbConfig(), Storage.at(folder), environ={})


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawData:
    return generate(tmp_path_factory.mktemp("synthetic"))


def frame(raw: RawData, name: str) -> pd.DataFrame:
    table: pd.DataFrame = (raw.folder / f"{name}.parquet").read_table().to_pandas()
    return table


def test_the_tables_are_as_asked_for(raw: RawData) -> None:
    for name, schema in {
        "ratings": RATINGS, "movies": MOVIES, "links": LINKS, "tags": TAGS, "tmdb": TMDB
    }.items():  # fmt: skip
        table = (raw.folder / f"{name}.parquet").read_table()
        check_schema(table.schema, schema, name)
        table.validate(full=True)
    ratings = frame(raw, "ratings")
    assert (len(ratings), raw.num_ratings) == (20_000, 20_000)
    assert (raw.num_users, raw.num_movies, raw.synthetic) == (300, 500, True)
    assert ratings["user_id"].nunique() == 300
    assert not ratings.duplicated(["user_id", "movie_id"]).any()
    assert set(ratings["rating"]) <= set(np.arange(0.5, 5.5, 0.5))
    assert ratings["row"].tolist() == list(range(20_000))
    assert ratings["user_id"].value_counts().min() >= 20
    assert ratings["movie_id"].isin(frame(raw, "movies")["movie_id"]).all()


def test_the_user_is_told_loudly(raw: RawData) -> None:
    assert any("THIS IS SYNTHETIC DATA" in notice for notice in raw.notices)


def test_a_model_can_learn_it_and_the_floor_is_known(raw: RawData) -> None:
    """Global mean, biases, genre tastes, the floor: each clearly better than the one before."""
    ratings = frame(raw, "ratings")
    train = np.random.default_rng(0).random(len(ratings)) < 0.8
    mean = ratings["rating"][train].mean()
    residual = ratings["rating"] - mean

    def damped(keys: pd.Series, residual: pd.Series, damping: float) -> pd.Series:
        groups = residual[train].groupby(keys[train])
        return keys.map(groups.sum() / (groups.count() + damping)).fillna(0.0)

    def rmse(errors: pd.Series) -> float:
        return float(np.sqrt(np.square(errors[~train]).mean()))

    no_model = rmse(residual)
    residual = residual - damped(ratings["movie_id"], residual, 3)
    residual = residual - damped(ratings["user_id"], residual, 5)
    biases = rmse(residual)
    genres = frame(raw, "movies").set_index("movie_id")["genres"].str.join("|").str.get_dummies()
    genres = genres.div(np.sqrt(genres.sum(axis=1)), axis=0)
    features = genres.loc[ratings["movie_id"]].to_numpy(float)
    for rows in ratings.groupby("user_id").indices.values():
        known = rows[train[rows]]
        x = features[known]
        weights = np.linalg.solve(x.T @ x + 4 * np.eye(x.shape[1]), x.T @ residual.iloc[known])
        residual.iloc[rows] -= features[rows] @ weights
    tastes = rmse(residual)
    floor = json.loads((raw.folder / "dataset.json").read_bytes())["noise_floor_rmse"]
    assert floor == pytest.approx(0.6, abs=0.03)
    assert no_model - biases > 0.1
    assert biases - tastes > 0.04
    assert tastes - floor > 0.02


def test_tmdb_numbers_tell_quality(raw: RawData) -> None:
    tmdb = frame(raw, "tmdb").set_index("movie_id")
    ratings = frame(raw, "ratings")
    means = ratings.groupby("movie_id")["rating"].mean()
    counts = ratings["movie_id"].value_counts()
    often = counts[counts >= 20].index
    assert tmdb["vote_average"].corr(means[often]) > 0.6
    assert tmdb["vote_count"].corr(counts, method="spearman") > 0.6


def test_the_records_have_gaps_as_tmdbs_have(raw: RawData) -> None:
    tmdb = frame(raw, "tmdb")
    assert raw.tmdb_coverage["missing"] > 0
    assert 0.2 < tmdb["budget"].isna().mean() < 0.5
    assert tmdb["release_date"].isna().sum() > raw.tmdb_coverage["missing"]
    shared = frame(raw, "links")["tmdb_id"].dropna()
    assert shared.duplicated().sum() == 1
    assert frame(raw, "links")["tmdb_id"].isna().sum() == 5
    assert (tmdb["status"] == "ok").sum() > shared.nunique() * 0.98


def test_the_seed_decides(raw: RawData, tmp_path: Path) -> None:
    assert generate(tmp_path).fingerprint == raw.fingerprint
    assert generate(tmp_path, seed=1).fingerprint != raw.fingerprint
    assert generate(tmp_path).fingerprint == raw.fingerprint


@pytest.mark.parametrize(
    "shape",
    [
        {"num_users": 2, "num_movies": 5, "num_ratings": 10},
        {"num_users": 40, "num_movies": 30, "num_ratings": 1200},
        {"num_users": 1000, "num_movies": 30, "num_ratings": 1000},
    ],
)
def test_extreme_shapes(tmp_path: Path, shape: dict[str, int]) -> None:
    raw = generate(tmp_path, **shape)
    ratings = frame(raw, "ratings")
    assert len(ratings) == shape["num_ratings"]
    assert not ratings.duplicated(["user_id", "movie_id"]).any()


def test_more_ratings_than_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_ratings = 11 is more than the 10 pairs"):
        generate(tmp_path, num_users=2, num_movies=5, num_ratings=11)


def test_drawn_pairs_are_distinct_and_favour_the_popular() -> None:
    rng = np.random.default_rng(0)
    popularity = np.linspace(1, 10, 100)
    counts = np.array([100, 0, 50, 10, 25, *[20] * 500])
    users, movies = draw_pairs(rng, counts, popularity)
    assert np.bincount(users, minlength=len(counts)).tolist() == counts.tolist()
    assert len(np.unique(users * 100 + movies)) == counts.sum()
    drawn = np.bincount(movies, minlength=100)
    assert drawn[-20:].sum() > 2 * drawn[:20].sum()


def test_large_data_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.sources.synthetic._RATINGS_AT_A_TIME", 3_000)
    data = SyntheticData.generate(SyntheticConfig())
    batches = list(data.rating_batches())
    assert len(batches) > 5
    assert max(batch.num_rows for batch in batches) < 4_000
    rows = np.concatenate([batch["row"].to_numpy() for batch in batches])
    assert rows.tolist() == list(range(20_000))
    assert data.noise_floor.count == 20_000


def test_shared_ids_lead_to_one_record() -> None:
    tmdb = SyntheticTmdb.of(SyntheticData.generate(SyntheticConfig()))
    assert tmdb.tmdb_ids[-1] == tmdb.tmdb_ids[-2]
    assert tmdb.tmdb_ids[-1] in tmdb.movies
