from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from foundation.errors import ConfigError
from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS, TMDB, check_schema
from foundation.storage import Storage
from ingest.config import DataConfig, SyntheticConfig, TmdbConfig
from ingest.dataset import ingest
from ingest.raw_data import RawData
from ingest.sources.synthetic import (
    Choices,
    SyntheticData,
    SyntheticTmdb,
    World,
    choice_oracle,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


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
    assert biases - tastes > 0.025
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


def test_large_data_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.sources.synthetic.data._RATINGS_AT_A_TIME", 3_000)
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


# -- choices ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> SyntheticData:
    return SyntheticData.generate(SyntheticConfig())


@pytest.fixture(scope="module")
def chosen(data: SyntheticData, raw: RawData) -> tuple[Ints, Ints]:
    """Positions of users and movies, one for each rating."""
    ratings = frame(raw, "ratings")
    movies = np.searchsorted(data.world.movie_ids, ratings["movie_id"].to_numpy())
    return ratings["user_id"].to_numpy() - 1, movies


def true_stars(world: World) -> Floats:
    """Above the mean, ``[U, M]``."""
    return world.user_bias[:, None] + world.quality + world.user_factors @ world.movie_factors.T


def ndcg(scores: Floats, known: npt.NDArray[np.bool_], held_out: npt.NDArray[np.bool_]) -> float:
    """NDCG@10 of ranking the unknown movies, mean over users; all arrays are ``[U, M]``."""
    best = np.argsort(-np.where(known, -np.inf, scores), axis=1, kind="stable")[:, :10]
    gain = 1 / np.log2(np.arange(2, 12))
    found = np.take_along_axis(held_out, best, axis=1) @ gain
    number = np.minimum(held_out.sum(axis=1), 10)
    return float(np.mean(found[number > 0] / np.cumsum(gain)[number[number > 0] - 1]))


def test_some_movies_are_rated_much_more_often(chosen: tuple[Ints, Ints]) -> None:
    counts = np.sort(np.bincount(chosen[1], minlength=500))
    assert 0.25 < counts[-50:].sum() / counts.sum() < 0.6
    assert counts[-1] > 10 * np.quantile(counts, 0.1)


def test_users_choose_what_they_like(data: SyntheticData, chosen: tuple[Ints, Ints]) -> None:
    """Of the movies, and of themselves: the means of both are taken out."""
    stars = true_stars(data.world)
    own = stars - stars.mean(axis=0) - stars.mean(axis=1, keepdims=True) + stars.mean()
    is_chosen = np.zeros(stars.shape, bool)
    is_chosen[chosen] = True
    better = [own[u][is_chosen[u]].mean() > own[u][~is_chosen[u]].mean() for u in range(300)]
    assert np.mean(better) > 0.9
    assert own[is_chosen].mean() - own[~is_chosen].mean() > 0.2


def test_ratings_are_missing_not_at_random(
    data: SyntheticData, chosen: tuple[Ints, Ints], raw: RawData
) -> None:
    stars = true_stars(data.world)
    assert stars[chosen].mean() - stars.mean() > 0.25
    assert frame(raw, "ratings")["rating"].mean() == pytest.approx(3.5, abs=0.15)


@pytest.mark.parametrize("shape", [{}, {"num_users": 40, "num_movies": 30, "num_ratings": 1200}])
def test_no_movie_is_rated_before_its_release(shape: dict[str, int]) -> None:
    data = SyntheticData.generate(SyntheticConfig(**shape))
    ratings = pd.concat([batch.to_pandas() for batch in data.rating_batches()])
    movies = np.searchsorted(data.world.movie_ids, ratings["movie_id"])
    times = pd.to_datetime(ratings["timestamp"], unit="s")
    assert (times.dt.year.to_numpy() >= data.world.years[movies]).all()
    released = pd.to_datetime([data.world.release_date(movie) for movie in movies.tolist()])
    assert (times.to_numpy() > released.to_numpy()).all()
    assert times.min() > pd.Timestamp("1996-01-01")
    assert times.max() < pd.Timestamp("2018-12-31")


def test_new_movies_are_chosen_more_often(
    data: SyntheticData, chosen: tuple[Ints, Ints], raw: RawData
) -> None:
    """Movies of 1998 to 2008: more ratings in their first two years than in two later ones."""
    years = (frame(raw, "ratings")["timestamp"].to_numpy() / 31_557_600) + 1970
    age = years - data.world.years[chosen[1]]
    recent = (data.world.years[chosen[1]] >= 1998) & (data.world.years[chosen[1]] <= 2008)
    fresh = np.sum(recent & (age >= 1) & (age < 2.5))
    later = np.sum(recent & (age >= 5) & (age < 6.5))
    assert fresh > 1.5 * later


def test_users_are_active_in_sessions(raw: RawData) -> None:
    ratings = frame(raw, "ratings").sort_values(["user_id", "timestamp"])
    pauses = ratings.groupby("user_id")["timestamp"].diff().dropna()
    assert (pauses < 7_200).mean() > 0.85
    assert (pauses > 7 * 86_400).sum() > 300


def test_the_oracle_ranks_better_than_popularity(chosen: tuple[Ints, Ints]) -> None:
    users, movies = chosen
    is_known = np.random.default_rng(0).random(len(users)) < 0.8
    known, held_out = np.zeros((2, 300, 500), bool)
    known[users[is_known], movies[is_known]] = True
    held_out[users[~is_known], movies[~is_known]] = True
    popularity = np.broadcast_to(known.sum(axis=0).astype(np.float64), known.shape)
    oracle = ndcg(choice_oracle(SyntheticConfig()), known, held_out)
    assert oracle > 1.4 * ndcg(popularity, known, held_out)


def test_the_oracle_does_not_depend_on_the_part_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ingest.sources.synthetic.data._RATINGS_AT_A_TIME", 3_000)
    config = SyntheticConfig(noise=0.1, seed=3)
    oracle = choice_oracle(config)
    assert oracle.shape == (300, 500)
    assert np.exp(oracle).sum(axis=1) == pytest.approx(np.ones(300))
    assert (choice_oracle(config) == oracle).all()
    some = np.array([2, 30, 31, 299])
    assert np.allclose(choice_oracle(config, some), oracle[some - 1])
    assert choice_oracle(config, some[:0]).shape == (0, 500)


@pytest.mark.parametrize("how", ["_by_rejection", "_by_ranking"])
def test_choices_have_the_probabilities_of_the_oracle(data: SyntheticData, how: str) -> None:
    """First choices of one user, many times."""
    _, _, choices = next(data.chunks())
    expected = 30_000 * np.exp(choices.log_probabilities(np.array([7])))[0]
    drawn = np.bincount(first_choices(choices, how, 7, 30_000), minlength=500)
    often = expected > 20
    assert often.sum() > 50
    deviations = (drawn - expected)[often] / np.sqrt(expected[often])
    assert np.abs(deviations).max() < 5
    assert np.square(deviations).mean() == pytest.approx(1, abs=0.5)


def first_choices(choices: Choices, how: str, user: int, number: int) -> Ints:
    """Positions of movies: what the only choice of ``user`` is, ``number`` times."""
    first = choices.habits.first
    one = slice(first[user], first[user + 1])
    habits = replace(
        choices.habits,
        genres=np.repeat(choices.habits.genres[[user]], number, axis=0),
        first=np.arange(number + 1) * (one.stop - one.start),
        starts=np.tile(choices.habits.starts[one], number),
    )
    many = replace(choices, habits=habits, users=np.repeat(choices.users[[user]], number))
    rng, counts = np.random.default_rng(0), np.ones(number, np.int64)
    if how == "_by_ranking":
        # More than a sixth of the movies are ranked; the first choice is not among the known.
        keys = [
            many._by_ranking(rng, b, counts[b], counts[:0]) for b in many.blocks(np.arange(number))
        ]
        return (np.concatenate(keys) >> 16) % 500
    return many.draw(rng, counts)[1]


def test_drawn_movies_are_distinct_and_as_many_as_asked_for(data: SyntheticData) -> None:
    _, _, choices = next(data.chunks())
    counts = np.array([500, 0, 250, 10, 83, 84, *[20] * 294])
    users, movies, sessions = choices.draw(np.random.default_rng(0), counts)
    assert np.bincount(users, minlength=300).tolist() == counts.tolist()
    assert (np.diff(users * 500 + movies) > 0).all()
    first = choices.habits.first
    assert (first[users] <= sessions).all()
    assert (sessions < first[users + 1]).all()
