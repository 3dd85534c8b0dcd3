"""SVD++ and timeSVD++ against their formulas, closed forms and planted ratings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ncf.baselines import global_mean
from ncf.baselines.svdpp import Calendar, Svdpp, SvdppSettings, best_svdpp, svdpp
from tests.ncf.worlds import World, rows_of

DAY = 86400
QUICK = SvdppSettings(with_times=False, factors=4, epochs=20)


@pytest.fixture(scope="module", params=[False, True], ids=["SVD++", "timeSVD++"])
def model(request: pytest.FixtureRequest, world: World) -> Svdpp:
    return svdpp(world.train, world.preprocessor, replace(QUICK, with_times=request.param))


def test_predictions_follow_the_formula(world: World, model: Svdpp) -> None:
    train, table = world.train, dict(model.network.named_parameters())
    found = model.predict(world.test[:20])
    rated = {
        user: [
            m for u, m in zip(train.users.tolist(), train.movies.tolist(), strict=True) if u == user
        ]
        for user in set(world.test.users[:20].tolist())
    }
    array = {name: values.detach().double().numpy() for name, values in table.items()}
    for i in range(20):
        user, movie = int(world.test.users[i]), int(world.test.movies[i])
        taste = array["p"][user].copy()
        if rated[user]:
            taste += array["y"][rated[user]].sum(axis=0) / len(rated[user]) ** 0.5
        expected = model.mean + array["user_bias"][user] + array["movie_bias"][movie]
        if "slope" in array:
            seconds = float(world.test.times[i])
            times = train.times.double().numpy()
            dates = times[train.users.numpy() == user] / DAY
            apart = seconds / DAY - dates.mean() if len(dates) else 0.0
            drift = np.sign(apart) * abs(apart) ** 0.4 / model.calendar.scale
            taste += array["p_slope"][user] * drift
            expected += array["slope"][user] * drift
            period = (seconds - times.min()) // ((times.max() - times.min()) / 30)
            expected += array["period_bias"][movie][int(np.clip(period, 0, 29))]
            same_day = np.flatnonzero(
                (train.users.numpy() == user) & (times // DAY == seconds // DAY)
            )
            if len(same_day):
                day = model.calendar.user_days(np.array([user]), np.array([seconds]))[0]
                expected += array["day_bias"][day]
        expected += array["q"][movie] @ taste
        assert float(found[i]) == pytest.approx(expected, abs=1e-4)


def test_biases_alone_are_a_ridge_regression(world: World) -> None:
    """With vectors that cost too much, the biases are those of the normal equations."""
    rows = world.train[:600]
    settings = replace(QUICK, factor_penalty=1e7, bias_penalty=3.0, epochs=400, learning_rate=0.05)
    found = svdpp(rows, world.preprocessor, settings).network
    users, movies = rows.users.numpy(), rows.movies.numpy()
    y = rows.ratings.double().numpy()
    sizes = len(found.user_bias), len(found.movie_bias)
    x = np.zeros((len(rows), sum(sizes)))
    x[np.arange(len(rows)), users] = 1
    x[np.arange(len(rows)), sizes[0] + movies] = 1
    solved = np.linalg.solve(x.T @ x + 3.0 * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    biases = np.concatenate([found.user_bias.detach().numpy(), found.movie_bias.detach().numpy()])
    np.testing.assert_allclose(biases, solved, atol=0.003)


def test_what_was_never_rated_is_the_mean_or_the_other_one(world: World, model: Svdpp) -> None:
    rows = world.train[world.train.movies != 7]
    settings = replace(QUICK, epochs=2, with_times=model.name == "timeSVD++")
    model = svdpp(rows, world.preprocessor, settings)
    time = int(world.train.times[0])
    found = model.predict(rows_of([0, 0], [7, 5], [3.0] * 2, times=[time] * 2))
    assert float(found[0]) == pytest.approx(model.mean)
    with torch.no_grad():
        movie = model.network.movie_bias[5].detach()
        if settings.with_times:
            period = model.calendar.periods(np.array([float(time)]))[0]
            movie = movie + model.network.period_bias[5, period]
    assert float(found[1]) == pytest.approx(model.mean + float(movie.detach()), abs=1e-5)


def test_both_are_better_than_the_mean_rating(world: World, model: Svdpp) -> None:
    mean = global_mean(world.train, world.preprocessor)
    rmse = [each.score(world.test, world.preprocessor).stars.rmse for each in (model, mean)]
    assert rmse[0] < rmse[1] - 0.1


def test_a_day_of_low_ratings_is_known_to_timesvdpp_alone(world: World) -> None:
    """One user rates everything 5 on one day and 1 on the next, where the asked movie is too."""
    days = np.repeat([10_000, 10_001], 30)
    ratings = np.where(days == 10_000, 5.0, 1.0).tolist()
    train = rows_of([1] * 60, list(range(1, 61)), ratings, times=(days * DAY).tolist())
    asked = rows_of([1, 1], [61, 61], [3.0] * 2, times=[10_000 * DAY + 60, 10_001 * DAY + 60])
    plain, timed = (
        svdpp(train, world.preprocessor, replace(QUICK, with_times=t)).predict(asked).numpy()
        for t in (False, True)
    )
    assert plain[0] == plain[1]
    assert timed[0] > timed[1] + 0.5


def test_the_calendar_is_that_of_the_training_rows() -> None:
    seconds = np.array([100.0, 100.4, 103.5]) * DAY
    calendar = Calendar.of(np.array([1, 1, 2]), seconds, 4)
    np.testing.assert_array_equal(
        calendar.periods(np.array([0.0, 100 * DAY, 200 * DAY])), [0, 0, 29]
    )
    np.testing.assert_array_equal(
        calendar.user_days(
            np.array([1, 2, 2, 1, 0]), np.array([100.9, 100.0, 103.1, 103.5, 100]) * DAY
        ),
        [1, 0, 2, 0, 0],
    )
    drift = calendar.drift(np.array([1, 1, 2, 3]), np.array([100.0, 101.2, 103.5, 50.0]) * DAY)
    assert drift[0] * calendar.scale == pytest.approx(-(0.2**0.4))
    assert drift[1] * calendar.scale == pytest.approx(1.0)
    assert drift[2] == 0


def test_a_seed_gives_the_same_model_and_leaves_torch_alone(world: World, model: Svdpp) -> None:
    settings = replace(QUICK, epochs=2)
    before = torch.get_rng_state()
    found = [
        svdpp(world.train, world.preprocessor, replace(settings, seed=seed)).predict(world.test)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_settings_are_those_with_the_lowest_validation_error(world: World) -> None:
    found = best_svdpp(world.train, world.validation, world.preprocessor, 3, with_times=True)
    assert found.with_times
    default = SvdppSettings(with_times=True)
    errors = [
        svdpp(world.train, world.preprocessor, each).score(world.validation, world.preprocessor)
        for each in (found, default)
    ]
    assert errors[0].stars.rmse <= errors[1].stars.rmse
    none = best_svdpp(world.train, None, world.preprocessor, 3, with_times=False)
    assert none == SvdppSettings(with_times=False)
