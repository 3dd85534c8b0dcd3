from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import bootstrap, ttest_ind

from ncf.evaluation.significance import Difference, UserErrors, differences, holm, resample

Floats = npt.NDArray[np.float64]


def errors_of(name: str, users: list[int], *seeds: list[float]) -> UserErrors:
    return UserErrors.of(name, np.array(users), max(users) + 1, seeds)


def test_errors_are_summed_by_user_and_seed() -> None:
    found = errors_of("a", [0, 1, 0, 1], [1.0, 2.0, -3.0, 0.0], [0.0, -1.0, 0.5, 1.0])

    assert found.counts.tolist() == [2, 2]
    assert found.squared.tolist() == [[10, 4], [0.25, 2]]
    assert found.absolute.tolist() == [[4, 2], [0.5, 2]]


def test_errors_on_several_sets_of_rows_are_those_of_their_users_together() -> None:
    one = UserErrors.of("a", np.array([0, 1]), 3, [[1.0, 2.0], [0.0, -1.0]])
    other = UserErrors.of("a", np.array([1, 2, 2]), 3, [[3.0, 1.0, 1.0], [0.5, 0.0, -2.0]])

    found = UserErrors.together([one, other])

    assert found.name == "a"
    assert found.counts.tolist() == [1, 2, 2]
    assert found.squared.tolist() == [[1, 13, 2], [0, 1.25, 4]]
    assert found.absolute.tolist() == [[1, 5, 2], [0, 1.5, 2]]


def test_two_users_by_hand() -> None:
    """User 0 has one row, user 1 has three; a draw takes 0 twice, both, or 1 twice."""
    users = [0, 1, 1, 1]
    models = [errors_of("a", users, [2.0, 1.0, 1.0, 1.0]), errors_of("b", users, [0, 1, 0, -2.0])]

    figures = resample(models, num_resamples=4000, seed=1)

    rmse, mae = figures["rmse"], figures["mae"]
    np.testing.assert_allclose(rmse.observed, [np.sqrt(7 / 4), np.sqrt(5 / 4)])
    np.testing.assert_allclose(mae.observed, [5 / 4, 3 / 4])
    # Mean squared errors of a and b: user 1 alone 1 and 5/3, both 7/4 and 5/4, user 0 alone 4, 0.
    outcomes, counts = np.unique(np.round(rmse.draws**2, 9), axis=0, return_counts=True)
    np.testing.assert_allclose(
        outcomes.astype(float), [[1.0, 5 / 3], [7 / 4, 5 / 4], [4.0, 0.0]], atol=1e-8
    )
    # Expected 1000, 2000, 1000, with standard deviations of 27 and 32.
    np.testing.assert_allclose(counts, [1000, 2000, 1000], atol=130)
    assert set(np.round(mae.draws[:, 0], 9)) == {1.0, 1.25, 2.0}


def test_seeds_of_a_model_see_the_same_draws_and_are_averaged_after_the_root() -> None:
    users = [0, 1]
    model = errors_of("a", users, [1.0, 3.0], [3.0, 1.0])

    figures = resample([model], num_resamples=500)

    assert figures["rmse"].observed[0] == pytest.approx(np.sqrt(5))
    # User 0 twice gives RMSE 1 and 3, user 1 twice gives 3 and 1: 2 on average, either way.
    assert set(np.round(figures["rmse"].draws[:, 0], 6)) == {2.0, round(float(np.sqrt(5)), 6)}


def test_the_mean_difference_agrees_with_the_bootstrap_of_scipy() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 1, 60), rng.normal(0, 1.3, 60)  # one row a user
    models = [errors_of(n, list(range(60)), list(e)) for n, e in (("a", first), ("b", second))]

    (rmse, _) = differences(models, [("a", "b")], num_resamples=20_000)

    def difference(a: Floats, b: Floats, axis: int = -1) -> Floats:
        return np.asarray(np.sqrt((a**2).mean(axis)) - np.sqrt((b**2).mean(axis)))

    expected = bootstrap(
        (first, second), difference, paired=True, n_resamples=20_000, method="percentile", rng=0
    ).confidence_interval
    assert rmse.value == pytest.approx(float(difference(first, second)))
    assert rmse.low == pytest.approx(expected.low, abs=0.01)
    assert rmse.high == pytest.approx(expected.high, abs=0.01)


def test_swapping_two_models_mirrors_every_figure() -> None:
    rng = np.random.default_rng(0)
    users = [int(user) for user in rng.integers(0, 30, 300)]
    users[0] = 29
    models = [errors_of(name, users, list(rng.normal(0, 1, 300))) for name in "ab"]

    forth = differences(models, [("a", "b")])
    back = differences(models, [("b", "a")])

    for one, other in zip(forth, back, strict=True):
        assert (one.metric, one.first, one.second) == (other.metric, other.second, other.first)
        assert (one.p, one.holm_p) == (other.p, other.holm_p)
        assert one.value == pytest.approx(-other.value)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert (one.corrected_low, one.corrected_high) == pytest.approx(
            (-other.corrected_high, -other.corrected_low)
        )
        assert one.corrected_low < one.low < one.high < one.corrected_high


def test_a_model_is_no_better_than_itself_and_certainly_better_than_noise() -> None:
    rng = np.random.default_rng(0)
    users = list(range(40)) * 5
    good = rng.normal(0, 0.5, 200)
    models = [
        errors_of("good", users, list(good)),
        errors_of("same", users, list(good)),
        errors_of("bad", users, list(3 * good + rng.normal(0, 0.1, 200))),
    ]

    same, _, better, _ = differences(models, [("good", "same"), ("good", "bad")])

    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert same.better is None
    assert better.better == "good"
    assert better.value < 0
    assert 0 < better.p < 0.001


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Users differ in how many rows they have and in how much worse the first model is for them."""
    rng = np.random.default_rng(11)
    num_users, repetitions, truth, covered = 60, 300, 0.1, 0
    for repetition in range(repetitions):
        users = np.repeat(np.arange(num_users), rng.integers(1, 9, num_users))
        # |error| is known exactly, so the true difference of the MAE is that of the means.
        extra = rng.normal(truth, 0.3, num_users)[users]
        base = 2 + rng.normal(0, 0.2, num_users)[users] + rng.normal(0, 0.1, len(users))
        models = [
            UserErrors.of("a", users, num_users, [base + extra]),
            UserErrors.of("b", users, num_users, [base]),
        ]
        _, mae = differences(models, [("a", "b")], num_resamples=400, seed=repetition)
        covered += mae.low <= truth <= mae.high
    # 95 % less the little that a percentile interval of 60 users lacks; 1.3 % is one deviation.
    assert 0.90 <= covered / repetitions <= 0.985


def test_varying_seeds_alone_gives_students_t_test() -> None:
    """All users alike, so the seeds are all there is."""
    users = list(range(50))
    of_seeds = {"a": [0.9, 1.0, 1.2, 1.05, 0.98], "b": [1.1, 1.3, 1.2]}
    models = [
        errors_of(name, users, *([value] * 50 for value in values))
        for name, values in of_seeds.items()
    ]

    rmse, mae = differences(models, [("a", "b")], num_resamples=100_000, vary_seeds=True)

    expected = ttest_ind(of_seeds["a"], of_seeds["b"])
    interval = expected.confidence_interval()
    for found in (rmse, mae):
        assert found.p == pytest.approx(expected.pvalue, rel=0.05)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.005)


@pytest.mark.parametrize(("vary_seeds", "lowest", "highest"), [(True, 0, 0.1), (False, 0.5, 1)])
def test_equal_models_with_other_seeds_are_seldom_told_apart(
    vary_seeds: bool, lowest: float, highest: float
) -> None:
    """Three models of three seeds each, which differ in nothing else; 5 % of families may err."""
    rng, wrong, repetitions = np.random.default_rng(4), 0, 100
    users = np.repeat(np.arange(50), 10)
    for repetition in range(repetitions):
        base = rng.normal(0, 0.8, len(users))
        models = [
            UserErrors.of(name, users, 50, [base * rng.normal(1, 0.02) for _ in range(3)])
            for name in "abc"
        ]
        found = differences(
            models,
            [("a", "b"), ("a", "c"), ("b", "c")],
            num_resamples=2000,
            seed=repetition,
            vary_seeds=vary_seeds,
        )
        wrong += any(difference.better for difference in found)
    assert lowest <= wrong / repetitions <= highest


def test_varying_seeds_leaves_what_has_one_seed_alone() -> None:
    rng = np.random.default_rng(2)
    models = [
        errors_of("one", list(range(9)), list(rng.normal(0, 1, 9))),
        errors_of("two", list(range(9)), *(list(rng.normal(0, 1, 9)) for _ in range(2))),
    ]

    fixed, varied = (resample(models, vary_seeds=vary)["rmse"].draws for vary in (False, True))

    assert fixed[:, 0].tolist() == varied[:, 0].tolist()
    assert np.std(varied[:, 1]) > np.std(fixed[:, 1])


def test_a_model_in_no_pair_changes_nothing() -> None:
    rng = np.random.default_rng(8)
    users = list(range(12))
    first, second = (
        errors_of(name, users, *(rng.normal(0, 1, 12).tolist() for _ in range(3))) for name in "ab"
    )
    steady = errors_of("c", users, *([1.0] * 12 for _ in range(9)))
    pair = [("a", "b")]
    assert differences([first, second, steady], pair, vary_seeds=True) == differences(
        [first, second], pair, vary_seeds=True
    )


def test_one_seed_has_no_spread_to_add() -> None:
    model = errors_of("a", [0, 1, 2], [1.0, 2.0, 3.0])

    assert (
        resample([model], vary_seeds=True)["mae"].draws.tolist()
        == resample([model])["mae"].draws.tolist()
    )


def test_the_seed_decides_the_draws() -> None:
    models = [errors_of("a", [0, 1, 2], [1.0, 2.0, 3.0])]

    one, again, other = (resample(models, seed=s)["mae"].draws.tolist() for s in (1, 1, 2))

    assert one == again != other


def test_draws_in_several_chunks_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ncf.evaluation.significance._WEIGHTS_AT_ONCE", 7)

    assert (
        len(resample([errors_of("a", [0, 1, 2], [1.0, 2, 3])], num_resamples=11)["mae"].draws) == 11
    )


def test_a_single_user_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two of them, found 1"):
        resample([errors_of("a", [0, 0], [1.0, 2.0])])


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        # Smallest times 4, next times 3, next times 2, largest times 1; never below the one before.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holms_correction_by_hand(p_values: list[float], expected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(expected)


def difference(**changes: Any) -> Difference:
    found = Difference("a", "b", "rmse", -0.1, -0.2, -0.05, 0.01, -0.3, -0.01, 0.02)
    return dataclasses.replace(found, **changes)


def test_better_needs_both_the_corrected_interval_and_the_corrected_p() -> None:
    assert difference().better == "a"
    assert difference(value=0.1, corrected_low=0.01, corrected_high=0.3).better == "b"
    assert difference(corrected_high=0.01).better is None
    assert difference(holm_p=0.06).better is None
