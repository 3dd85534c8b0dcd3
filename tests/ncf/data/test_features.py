from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.preprocessing import PowerTransformer

from foundation.schemas import MOVIES
from ncf.config import FeaturesConfig, TimeDecayConfig
from ncf.data.features import TMDB_COLUMNS, TrainingStatistics, fit, join_movies
from ncf.data.preprocessor import Preprocessor
from ncf.errors import DataError

RatingSource = list[dict[str, Any]]


def movie_frame(rows: RatingSource) -> pd.DataFrame:
    """The movies table as the pipeline reads it; ``title`` and ``genres`` may be left out."""
    full = [{"title": f"Movie {r['movie_id']}", "year": None, "genres": [], **r} for r in rows]
    return pa.Table.from_pylist(full, schema=MOVIES).to_pandas()


def tmdb_frame(rows: RatingSource) -> pd.DataFrame:
    """Part of the TMDb table as the pipeline reads it; what is left out is missing."""
    types = {
        "movie_id": pa.int64(),
        "budget": pa.int64(),
        "revenue": pa.int64(),
        "popularity": pa.float64(),
        "vote_average": pa.float64(),
        "vote_count": pa.int64(),
        "runtime": pa.int32(),
        "release_date": pa.date32(),
    }
    return pa.Table.from_pylist(rows, schema=pa.schema(types)).to_pandas(date_as_object=False)


def statistics(counts: Mapping[int, int]) -> TrainingStatistics:
    """Training rows in which movie ``id`` has ``counts[id]`` ratings."""
    ids = sorted(counts)
    return TrainingStatistics(
        user_ids=np.array([4, 8]),
        movie_ids=np.array(ids),
        movie_counts=np.array([counts[i] for i in ids]),
        rating_sum=3.25 * sum(counts.values()),
        rating_min=1.0,
        rating_max=4.5,
        newest=1_234_567_890,
    )


def fit_numeric(name: str, values: list[float | None], **settings: Any) -> Preprocessor:
    """Fit one TMDb feature of movies 1, 2, ...; the last movie has no training rating."""
    ids = range(1, len(values) + 1)
    movies = join_movies(
        movie_frame([{"movie_id": i} for i in ids]),
        tmdb_frame([{"movie_id": i, name: v} for i, v in zip(ids, values, strict=True)]),
    )
    config = FeaturesConfig.model_validate({"numeric": (name,), **settings})
    return fit(statistics(dict.fromkeys(ids[:-1], 1)), movies, config, TimeDecayConfig())


# -- join ------------------------------------------------------------------------------------------


def test_join_takes_the_year_from_the_title_else_from_tmdb() -> None:
    movies = movie_frame(
        [
            {"movie_id": 3, "year": 1995},
            {"movie_id": 1},
            {"movie_id": 2},
            {"movie_id": 7},
        ]
    )
    tmdb = tmdb_frame(
        [
            {"movie_id": 1, "release_date": date(1987, 12, 31), "budget": 5},
            {"movie_id": 2},
            {"movie_id": 3, "release_date": date(2001, 1, 1), "budget": 7},
        ]
    )
    joined = join_movies(movies, tmdb)
    assert joined["movie_id"].tolist() == [1, 2, 3, 7]
    np.testing.assert_array_equal(joined["year"], [1987, np.nan, 1995, np.nan])
    np.testing.assert_array_equal(joined["budget"], [5, np.nan, 7, np.nan])


def test_join_without_tmdb_leaves_its_columns_empty() -> None:
    joined = join_movies(movie_frame([{"movie_id": 1, "year": 1999}]), None)
    assert joined[list(TMDB_COLUMNS)].isna().all(axis=None)
    assert joined["year"].tolist() == [1999]


def test_join_refuses_a_movie_that_stands_twice() -> None:
    with pytest.raises(DataError, match="movie_id 6 occurs more than once"):
        join_movies(movie_frame([{"movie_id": 6}, {"movie_id": 6}]), None)


def test_features_without_any_training_value_are_left_out() -> None:
    movies = join_movies(
        movie_frame([{"movie_id": 1, "year": 1990}, {"movie_id": 2, "year": 2000}]),
        tmdb_frame([{"movie_id": 2, "budget": 9}]),
    )
    preprocessor = fit(statistics({1: 3}), movies, FeaturesConfig(), TimeDecayConfig())
    assert preprocessor.numeric_names == ("year", "train_ratings")
    assert preprocessor.movies.numeric.shape == (2, 2)


# -- numeric features ------------------------------------------------------------------------------


def test_a_missing_value_becomes_the_training_median() -> None:
    preprocessor = fit_numeric("budget", [100, None, 300, 200, 1000, 999_999], transform="none")
    column = preprocessor.numeric[0]
    # Of 100, 200, 300 and 1000: median 250, mean 400, variance 12.5e4.
    assert column.median == 250
    assert column.mean == 400
    assert column.scale == pytest.approx(np.sqrt(125_000))
    raw = np.array([100, 250, 300, 200, 1000, 999_999])
    expected = (raw - 400) / np.sqrt(125_000)
    np.testing.assert_allclose(preprocessor.movies.numeric[:, 0], expected, rtol=1e-6)


def test_gaps_in_training_movies_get_an_indicator() -> None:
    preprocessor = fit_numeric("budget", [100, None, 300, None])
    assert preprocessor.numeric_names == ("budget", "budget_missing")
    assert preprocessor.movies.numeric[:, 1].tolist() == [0, 1, 0, 1]


def test_gaps_in_other_movies_get_none_but_are_filled() -> None:
    preprocessor = fit_numeric("budget", [100, 200, 600, None], transform="none")
    assert preprocessor.numeric_names == ("budget",)
    # (median 200 - mean 300) / standard deviation 216.02
    assert preprocessor.movies.numeric[3, 0] == pytest.approx(-100 / 216.0247, rel=1e-5)


def test_indicators_can_be_turned_off() -> None:
    preprocessor = fit_numeric("budget", [100, None, 300, None], missing_indicators=False)
    assert preprocessor.numeric_names == ("budget",)


@pytest.mark.parametrize("name", ["popularity", "budget", "runtime"])
def test_yeo_johnson_equals_scikit_learn_fitted_on_the_training_movies(name: str) -> None:
    rng = np.random.default_rng(3)
    values = np.round(np.exp(rng.normal(4, 1.5, 40)))
    preprocessor = fit_numeric(name, values.tolist())
    reference = PowerTransformer(method="yeo-johnson", standardize=True)
    reference.fit(values[:-1, None])
    expected = reference.transform(values[:, None])[:, 0]
    np.testing.assert_allclose(preprocessor.movies.numeric[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert preprocessor.movies.numeric[:-1].mean() == pytest.approx(0, abs=1e-6)
    assert preprocessor.movies.numeric[:-1].std() == pytest.approx(1, abs=1e-5)


def test_log1p_by_hand() -> None:
    preprocessor = fit_numeric(
        "popularity", [0, np.e - 1, np.e**5 - 1, np.e**8 - 1], transform="log1p"
    )
    # Logarithms 0, 1, 5: mean 2, variance (4 + 1 + 9) / 3; the movie without ratings has 8.
    expected = (np.array([0, 1, 5, 8]) - 2) / np.sqrt(14 / 3)
    np.testing.assert_allclose(preprocessor.movies.numeric[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("transform", ["yeo-johnson", "log1p", "none"])
def test_a_constant_feature_becomes_zero(transform: str) -> None:
    preprocessor = fit_numeric("runtime", [90, 90, 90, 91], transform=transform)
    np.testing.assert_allclose(preprocessor.movies.numeric[:-1], 0, atol=1e-6)
    # Another value in an unseen movie must not be divided by a spread that is rounding noise.
    assert 0 < preprocessor.movies.numeric[-1, 0] <= 1


def test_train_ratings_counts_training_ratings_and_takes_none_for_one() -> None:
    movies = join_movies(movie_frame([{"movie_id": i} for i in (1, 2, 3)]), None)
    config = FeaturesConfig(numeric=("train_ratings",), transform="none")
    preprocessor = fit(statistics({1: 11, 3: 31}), movies, config, TimeDecayConfig())
    assert preprocessor.movies.train_counts.tolist() == [11, 0, 31]
    assert preprocessor.movies.numeric[:, 0].tolist() == [-1, -2, 1]


def test_years_are_scaled_without_a_power() -> None:
    years = [*range(1930, 2019), *range(1990, 2019)] * 3
    movies = join_movies(
        movie_frame([{"movie_id": i, "year": y} for i, y in enumerate(years)]), None
    )
    preprocessor = fit(
        statistics(dict.fromkeys(range(len(years)), 1)),
        movies,
        FeaturesConfig(numeric=("year",)),
        TimeDecayConfig(),
    )
    values = preprocessor.movies.numeric[:, 0]
    by_hand = (np.array(years) - np.mean(years)) / np.std(years)
    np.testing.assert_allclose(values, by_hand, rtol=1e-5, atol=1e-6)


# -- genres and decades ----------------------------------------------------------------------------


def test_genres_and_decades_come_from_movies_with_a_training_rating_only() -> None:
    movies = join_movies(
        movie_frame(
            [
                {"movie_id": 1, "year": 1999, "genres": ["War", "Comedy"]},
                {"movie_id": 2, "year": 1980, "genres": []},
                {"movie_id": 3, "year": 1925, "genres": ["Western", "War"]},
                {"movie_id": 4, "genres": ["Comedy"]},
                {"movie_id": 5, "year": 1989, "genres": ["Western"]},
            ]
        ),
        None,
    )
    preprocessor = fit(statistics({1: 1, 2: 2, 4: 1}), movies, FeaturesConfig(), TimeDecayConfig())
    assert preprocessor.genres == ("Comedy", "War")
    assert preprocessor.movies.genres.tolist() == [
        [True, True],
        [False, False],
        [False, True],
        [True, False],
        [False, False],
    ]
    assert preprocessor.decades == (1980, 1990)
    assert preprocessor.movies.decade.tolist() == [2, 1, 0, 0, 1]
    assert preprocessor.movies.embedding_index.tolist() == [1, 2, 0, 3, 0]
    assert (preprocessor.num_users, preprocessor.num_movies) == (2, 3)


# -- nothing leaks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", ["yeo-johnson", "log1p", "none"])
def test_movies_without_training_ratings_change_nothing_that_is_fitted(
    transform: str, assert_same: Callable[[Any, Any], None]
) -> None:
    rng = np.random.default_rng(0)
    rated: RatingSource = [
        {"movie_id": i, "year": 1960 + 3 * i, "genres": ["War"] if i % 2 else ["Drama"]}
        for i in range(1, 20)
    ]
    details: RatingSource = [
        {"movie_id": i, "budget": int(rng.integers(1, 10**8)), "vote_average": i / 2}
        for i in range(1, 19)
    ]
    config = FeaturesConfig.model_validate({"transform": transform})

    def state(unseen: dict[str, Any], unseen_details: dict[str, Any]) -> Preprocessor:
        movies = join_movies(
            movie_frame([*rated, {"movie_id": 99, **unseen}]),
            tmdb_frame([*details, {"movie_id": 99, **unseen_details}]),
        )
        counts = statistics({i: i for i in range(1, 20)})
        return fit(counts, movies, config, TimeDecayConfig())

    plain = state({}, {})
    other = state(
        {"title": "Other", "year": 1902, "genres": ["Noir", "War"]},
        {"budget": 10**12, "revenue": 5, "popularity": 9.0, "vote_average": -3.0, "runtime": 1},
    )
    assert len(plain.numeric) == 4  # budget, vote_average, year, train_ratings
    # All but the unseen movie's own row must be the same to the last bit.
    kept = replace(
        other.movies,
        titles=(*other.movies.titles[:-1], plain.movies.titles[-1]),
        genres=np.vstack([other.movies.genres[:-1], plain.movies.genres[-1:]]),
        decade=np.r_[other.movies.decade[:-1], plain.movies.decade[-1:]],
        numeric=np.vstack([other.movies.numeric[:-1], plain.movies.numeric[-1:]]),
    )
    assert (other.movies.numeric[-1] != plain.movies.numeric[-1]).any()
    assert_same(replace(other, movies=kept), plain)


def test_unseen_movies_are_transformed_with_the_fitted_values() -> None:
    values: list[float | None] = [20.0, 40.0, 90.0, 200.0, 55.0]
    preprocessor = fit_numeric("popularity", values)
    reference = PowerTransformer().fit([[v] for v in values[:-1]])
    expected = float(reference.transform([[55.0]])[0, 0])
    assert preprocessor.movies.numeric[-1, 0] == pytest.approx(expected, rel=1e-4)


# -- the rest --------------------------------------------------------------------------------------


def test_ratings_and_users_are_taken_over_from_the_statistics() -> None:
    movies = join_movies(movie_frame([{"movie_id": 1}]), None)
    preprocessor = fit(
        statistics({1: 8}), movies, FeaturesConfig(), TimeDecayConfig(rate_per_day=0.5)
    )
    assert preprocessor.user_ids.tolist() == [4, 8]
    assert (preprocessor.rating_mean, preprocessor.rating_min, preprocessor.rating_max) == (
        3.25,
        1.0,
        4.5,
    )
    assert (preprocessor.decay_reference, preprocessor.decay_rate_per_day) == (1_234_567_890, 0.5)


def test_the_decay_reference_can_be_a_day_in_utc() -> None:
    movies = join_movies(movie_frame([{"movie_id": 1}]), None)
    decay = TimeDecayConfig(reference=date(2018, 9, 24))
    preprocessor = fit(statistics({1: 8}), movies, FeaturesConfig(), decay)
    assert preprocessor.decay_reference == datetime(2018, 9, 24, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("missing", [0, 7, 100])
def test_a_rated_movie_that_the_movies_table_lacks_is_named(missing: int) -> None:
    movies = join_movies(movie_frame([{"movie_id": 3}, {"movie_id": 9}]), None)
    with pytest.raises(DataError, match=f"1 rated movies .* the first is {missing}$"):
        fit(statistics({3: 1, missing: 2}), movies, FeaturesConfig(), TimeDecayConfig())


def test_an_empty_movies_table_is_refused() -> None:
    movies = join_movies(movie_frame([]), None)
    with pytest.raises(DataError, match="2 rated movies are not in the movies table"):
        fit(statistics({3: 1, 4: 2}), movies, FeaturesConfig(), TimeDecayConfig())


# -- people and keywords ---------------------------------------------------------------------------


def test_entries_that_enough_training_movies_have_make_the_vocabulary() -> None:
    cast = {1: [90, 70, 80], 2: [70, 80], 3: [80, 90, 80], 4: [70], 5: None, 6: [60, 80, 90]}
    movies = join_movies(
        movie_frame([{"movie_id": movie} for movie in cast]),
        tmdb_frame([{"movie_id": movie} for movie in cast]).assign(
            cast=pd.Series(list(cast.values()), dtype=object)
        ),
    )
    config = FeaturesConfig(names=("cast",), min_movies_per_name=2, max_names=3)
    # Movies 4 and 6 have no training rating: 70 is in two others, 90 in two, 60 in none.
    preprocessor = fit(statistics({1: 1, 2: 5, 3: 1, 5: 1}), movies, config, TimeDecayConfig())
    assert preprocessor.vocabularies["cast"].tolist() == [70, 80, 90]
    assert preprocessor.movies.names["cast"].tolist() == [
        [1, 2, 3], [1, 2, 0], [2, 3, 0], [1, 0, 0], [0, 0, 0], [2, 3, 0],
    ]  # fmt: skip
    first = FeaturesConfig(names=("cast",), min_movies_per_name=2, max_names=1)
    preprocessor = fit(statistics({1: 1, 2: 5, 4: 1}), movies, first, TimeDecayConfig())
    assert preprocessor.vocabularies["cast"].tolist() == [70]
    assert preprocessor.movies.names["cast"].ravel().tolist() == [0, 1, 0, 1, 0, 0]


def test_without_tmdb_there_are_no_names() -> None:
    movies = join_movies(movie_frame([{"movie_id": 1, "year": 1999}]), None)
    preprocessor = fit(statistics({1: 1}), movies, FeaturesConfig(), TimeDecayConfig())
    assert preprocessor.vocabularies == preprocessor.movies.names == {}
