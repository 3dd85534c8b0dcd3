"""Features of rows against plain loops; above all, that no row sees its own rating."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from ncf.baselines.boosting import BoostingSettings, features, training_features
from ncf.baselines.sessions import UserRatings, sessions, user_features
from ncf.baselines.statistics import History, content, standardised, statistics
from ncf.baselines.tables import FeatureTable, out_of_fold
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor

DAY = 86400


@pytest.fixture(scope="module")
def dated(world: Any) -> Batch:
    """150 ratings of 12 users, in sittings of a few minutes, some in the same second."""
    random = np.random.default_rng(5)
    few = world.train[world.train.users <= 12][:150]
    sitting = random.integers(0, 4, len(few)) * 100 * DAY
    return replace(few, times=torch.from_numpy(10**9 + sitting + random.integers(0, 90, len(few))))


def column(table: FeatureTable, name: str) -> np.ndarray:
    return table.values[:, table.names.index(name)]


def with_rating(rows: Batch, row: int, stars: float) -> Batch:
    ratings = rows.ratings.clone()
    ratings[row] = stars
    return replace(rows, ratings=ratings)


def test_no_training_row_sees_its_own_rating(world: Any, dated: Batch) -> None:
    settings = BoostingSettings(with_times=True, folds=5)
    before = training_features(dated, world.preprocessor, settings).values
    for row in range(0, len(dated), 6):
        changed = with_rating(dated, row, float(dated.ratings[row]) + 1.7)
        after = training_features(changed, world.preprocessor, settings).values
        np.testing.assert_array_equal(after[row], before[row])
        others = (after != before) & ~(np.isnan(after) & np.isnan(before))
        assert others.any(), "the rating matters to other rows"


def test_hidden_users_are_described_without_their_user(world: Any, dated: Batch) -> None:
    settings = BoostingSettings(with_times=True, folds=5)
    usual = training_features(dated, world.preprocessor, settings)
    found = training_features(dated, world.preprocessor, replace(settings, hidden_user_share=0.3))
    hidden = np.isnan(column(found, "user mean")) & ~np.isnan(column(usual, "user mean"))
    assert 0.15 < hidden.mean() < 0.45
    # Their ratings still count for the others, so that nothing else changes.
    np.testing.assert_array_equal(found.values[~hidden], usual.values[~hidden])
    movie = column(found, "movie mean"), column(usual, "movie mean")
    np.testing.assert_array_equal(*movie)


def test_ratings_of_described_rows_are_not_used(world: Any, dated: Batch) -> None:
    history, rows = History(dated[:100], world.preprocessor), dated[100:]
    hidden = replace(rows, ratings=torch.full_like(rows.ratings, math.nan))
    np.testing.assert_array_equal(
        features(history, rows, with_times=True).values,
        features(history, hidden, with_times=True).values,
    )


def test_each_fold_is_described_by_the_other_folds() -> None:
    seen = []

    def count(history: Batch, rows: Batch) -> FeatureTable:
        seen.append((history.users.tolist(), rows.users.tolist()))
        return FeatureTable.of([("user", rows.users.numpy().astype(float))])

    users = torch.arange(10, dtype=torch.int32)
    rows = Batch(users, users, users.float(), users.float(), users.long())
    found = out_of_fold(rows, rows, count, 3, 0)
    assert column(found, "user").tolist() == list(range(10))  # in the rows' order again
    assert sorted(user for _, fold in seen for user in fold) == list(range(10))
    assert sorted(len(fold) for _, fold in seen) == [3, 3, 4]
    for history, fold in seen:
        assert sorted(history + fold) == list(range(10))
    assert len(out_of_fold(rows[:2], rows[:2], count, 3, 0).values) == 2  # fewer rows than folds


def test_statistics_of_a_fold_are_those_of_the_other_rows(world: Any, dated: Batch) -> None:
    def described(history: Batch, rows: Batch) -> FeatureTable:
        return statistics(History(history, world.preprocessor), rows)

    found = out_of_fold(dated, dated, described, 4, seed=9)
    fold = np.random.default_rng(9).permutation(len(dated)) % 4
    users, movies = dated.users.numpy(), dated.movies.numpy()
    stars = dated.ratings.double().numpy()
    for row in range(len(dated)):
        known = fold != fold[row]
        for name, members in (("user", users), ("movie", movies)):
            mine = stars[known & (members == members[row])]
            expected = [
                math.log1p(len(mine)),
                mine.mean() if len(mine) else math.nan,
                mine.std() if len(mine) else math.nan,
            ]
            values = [column(found, f"{name} {what}")[row] for what in ("count", "mean", "spread")]
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_statistics_by_hand(preprocessor: Preprocessor, make_rows: Callable[..., Batch]) -> None:
    known = make_rows([1, 1, 1, 2], [0, 1, 2, 0], [5.0, 3.5, 2.0, 4.0])
    found = statistics(History(known, preprocessor), make_rows([1, 2, 0], [0, 1, 3], [0.0] * 3))

    def is_column(name: str, expected: list[float]) -> None:
        np.testing.assert_allclose(column(found, name), expected, rtol=1e-6, err_msg=name)

    is_column("user half stars", [1 / 3, 0, math.nan])
    is_column("user top", [1 / 3, 0, math.nan])  # the highest rating is 5
    log2, log3 = math.log(2), math.log(3)
    is_column("user popularity", [(log3 + 2 * log2) / 3, log3, math.nan])
    is_column("movie raters activity", [(math.log(4) + log2) / 2, math.log(4), math.nan])
    is_column("genre Comedy", [1, 1, 0])
    is_column("decade", [1, 2, math.nan])
    is_column("budget", [0.5, -0.5, 2.0])
    is_column("budget_missing", [0, 0, 0])


def test_genre_taste_is_the_damped_mean_residual_in_the_movies_genres(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    known = make_rows([1, 1, 1, 2], [0, 1, 3, 0], [5.0, 3.5, 2.0, 4.0])
    history = History(known, preprocessor)
    found = statistics(history, make_rows([1, 1, 0], [1, 2, 1], [0.0] * 3))
    left = history.biases.residuals(known)
    comedy, war = (left[0] + left[1]) / (2 + 5), left[1] / (1 + 5)
    # Movie 1 is a comedy and about war, movie 2 has no genre, user 0 is unknown.
    np.testing.assert_allclose(column(found, "genre taste"), [(comedy + war) / 2, 0, 0], rtol=1e-6)


def test_content_taste_is_scikit_learns_ridge(world: Any, dated: Batch) -> None:
    history = History(dated[:100], world.preprocessor)
    found = column(statistics(history, dated[100:]), "content taste")
    inputs, left = standardised(world.preprocessor), history.biases.residuals(history.rows)
    for row, (user, movie) in enumerate(zip(dated.users[100:], dated.movies[100:], strict=True)):
        mine = history.users == int(user)
        model = Ridge(alpha=20.0, fit_intercept=False)
        model.fit(inputs[history.movies[mine]], left[mine])
        expected = model.predict(inputs[[int(movie)]])[0]
        assert found[row] == pytest.approx(expected, abs=1e-5)


def test_the_count_of_training_ratings_is_no_feature(preprocessor: Preprocessor) -> None:
    # It counts the row itself, which the counts out of fold do not.
    named = replace(preprocessor, numeric=(replace(preprocessor.numeric[0], name="train_ratings"),))
    assert "train_ratings" not in content(named).names
    assert "budget" in content(preprocessor).names


def test_sessions_user_features_by_hand() -> None:
    ratings = UserRatings(
        times=np.array([0.0, 60.0, 60.0, 1000.0]),
        residuals=np.array([1.0, -0.5, 0.25, 2.0]),
        content=np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]]),
    )
    rows = np.array([60.0, -40.0, 2000.0])
    found = user_features(ratings, rows, np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))

    def is_column(name: str, expected: list[float]) -> None:
        np.testing.assert_allclose(
            column(found, name), expected, rtol=1e-5, atol=1e-9, err_msg=name
        )

    # Ratings of the same second come before and after.
    is_column("previous 1", [0.25, math.nan, 2.0])
    is_column("next 1", [-0.5, 1.0, math.nan])
    is_column("previous 3", [0.25, math.nan, 1.75 / 3])
    is_column("next 3", [1.75 / 3, 0.25, math.nan])
    is_column("position", [math.log(2), 0, math.log(5)])
    is_column("position, share", [4 / 8, 0, 1])
    is_column("days since first", [60 / DAY, -40 / DAY, 2000 / DAY])
    is_column("days until last", [940 / DAY, 1040 / DAY, -1000 / DAY])
    is_column("since previous", [math.log(61), math.nan, math.log(1001)])
    is_column("until next", [math.log(941), math.log(41), math.nan])
    is_column("ratings at most a minute apart", [math.log(4), math.log(2), 0])
    is_column("ratings at most an hour apart", [math.log(5)] * 3)
    for name, scale in (
        ("10 seconds", 10),
        ("minute", 60),
        ("hour", 3600),
        ("600 days", 600 * DAY),
    ):
        moods, alike, around = [], [], []
        for time, similarity in zip(
            rows, [[1, 0, 0.6, 0], [1, 0, 0.6, 0], [0, 1, 0.8, 0]], strict=True
        ):
            weight = np.exp(-np.abs(time - ratings.times) / scale)
            moods.append((weight * ratings.residuals).sum() / (weight.sum() + 1))
            weight_alike = weight * similarity
            alike.append((weight_alike * ratings.residuals).sum() / (weight_alike.sum() + 1))
            around.append(math.log1p(weight.sum()))
        is_column(f"residual, {name}", moods)
        is_column(f"residual of similar movies, {name}", alike)
        is_column(f"ratings around, {name}", around)
    is_column(
        "residual of similar movies",
        [(1 + 0.36 * 0.25) / 2.36, (1 + 0.36 * 0.25) / 2.36, (-0.5 + 0.64 * 0.25) / 2.64],
    )


def test_sessions_are_those_of_each_users_own_ratings(
    world: Any, dated: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, rows = History(dated[:110], world.preprocessor), dated[110:]
    whole = sessions(history, rows)
    monkeypatch.setattr("ncf.baselines.sessions._CELLS", 20)  # in many parts
    np.testing.assert_array_equal(sessions(history, rows).values, whole.values)
    left, times = history.biases.residuals(history.rows), history.rows.times.numpy()
    for row, (user, time) in enumerate(zip(rows.users.tolist(), rows.times.tolist(), strict=True)):
        mine = history.users == user
        weight = np.exp(-np.abs(times[mine] - time) / 3600)
        expected = (weight * left[mine]).sum() / (weight.sum() + 1)
        assert column(whole, "residual, hour")[row] == pytest.approx(expected, abs=1e-6)


def test_unknown_users_have_no_session_and_no_average(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    known = make_rows([0, 1], [0, 1], [5.0, 1.0], times=[100, 100])
    found = features(History(known, preprocessor), make_rows([0], [1], [0.0], times=[100]), True)
    assert np.isnan(column(found, "user mean")[0])
    assert column(found, "ratings at most a minute apart")[0] == 0
    assert column(found, "residual, hour")[0] == 0
    assert column(found, "content taste")[0] == 0


def test_the_age_of_a_movie_when_it_was_rated(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    history = History(make_rows([1], [0], [4.0]), preprocessor)
    found = sessions(history, make_rows([1, 1], [0, 1], [0.0] * 2, times=[0, 7230]))
    # Standardised years -1 and 1 about 1990 in steps of 5.
    np.testing.assert_allclose(column(found, "movie age"), [1970 - 1985, 1970 - 1995], atol=1e-3)
    np.testing.assert_allclose(column(found, "hour of day"), [0, 7230 / 3600], rtol=1e-6)


def test_no_rows_have_no_features_but_all_columns(world: Any, dated: Batch) -> None:
    history = History(dated, world.preprocessor)
    some, none = features(history, dated[:3], True), features(history, dated[:0], True)
    assert none.names == some.names
    assert none.values.shape == (0, len(some.names))
    assert len(set(some.names)) == len(some.names)


def test_a_folded_in_training_user_has_the_features_of_the_training_user(
    world: Any, dated: Batch
) -> None:
    history = History(dated, world.preprocessor)
    for user in (1, 4, 9):
        mine = dated[dated.users == user]
        asked = replace(mine, movies=(mine.movies + 1) % len(world.preprocessor.movies))
        known = features(history, asked, with_times=True)
        found = features(history.fold_in(mine), asked, with_times=True)
        assert found.names == known.names
        same = [name != "factorization" for name in known.names]  # one update of the user more
        np.testing.assert_allclose(found.values[:, same], known.values[:, same], rtol=1e-5)
        factors = column(found, "factorization"), column(known, "factorization")
        np.testing.assert_allclose(*factors, atol=0.1)
        hidden = replace(asked, users=torch.zeros_like(asked.users))
        again = features(history.fold_in(mine), hidden, with_times=True)
        np.testing.assert_array_equal(again.values, found.values)
