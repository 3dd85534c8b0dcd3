from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import bootstrap, ttest_ind

from ncf.evaluation.choice_significance import (
    ChoiceDifference,
    UserValues,
    choice_differences,
    resample_means,
)

Floats = npt.NDArray[np.float64]
NAN = float("nan")


def values_of(name: str, *seeds: list[float]) -> UserValues:
    return UserValues(name, np.array(seeds))


def test_two_users_by_hand() -> None:
    """A draw takes user 0 twice, both, or user 1 twice; the user between has no value."""
    models = [values_of("a", [1.0, NAN, 0.0]), values_of("b", [0.5, NAN, 0.25])]

    figures = resample_means(models, num_resamples=4000, seed=1)

    assert figures.observed.tolist() == [0.5, 0.375]
    outcomes, counts = np.unique(figures.draws, axis=0, return_counts=True)
    assert outcomes.tolist() == [[0.0, 0.25], [0.5, 0.375], [1.0, 0.5]]
    # Expected 1000, 2000, 1000, with standard deviations of 27 and 32.
    np.testing.assert_allclose(counts, [1000, 2000, 1000], atol=130)


def test_a_slow_bootstrap_gives_the_same_intervals() -> None:
    rng = np.random.default_rng(3)
    models = [UserValues(name, rng.random((2, 40))) for name in "ab"]

    (found,) = choice_differences(models, [("a", "b")], "ndcg@10", num_resamples=500, seed=7)

    one, other = (model.values for model in models)
    drawn = [
        float(np.mean([(one[s, users] - other[s, users]).mean() for s in range(2)]))
        for users in np.random.default_rng(7).integers(0, 40, (500, 40))
    ]
    assert found.value == pytest.approx(one.mean() - other.mean())
    expected = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert (found.corrected_low, found.corrected_high) == (found.low, found.high)  # one comparison
    smaller = min(sum(d <= 0 for d in drawn), sum(d >= 0 for d in drawn))
    assert found.p == found.holm_p == pytest.approx(2 * (1 + smaller) / 501)
    assert (found.first, found.second, found.metric) == ("a", "b", "ndcg@10")


def test_the_interval_agrees_with_the_bootstrap_of_scipy() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.random(60), rng.random(60) ** 2
    models = [values_of("a", first.tolist()), values_of("b", second.tolist())]

    (found,) = choice_differences(models, [("a", "b")], "ndcg@10", num_resamples=20_000)

    def difference(a: Floats, b: Floats, axis: int = -1) -> Floats:
        return np.asarray(a.mean(axis) - b.mean(axis))

    expected = bootstrap(
        (first, second), difference, paired=True, n_resamples=20_000, method="percentile", rng=0
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.003)


def test_several_comparisons_are_one_family() -> None:
    rng = np.random.default_rng(5)
    base = rng.random(50)
    models = [
        values_of("a", base.tolist()),
        values_of("b", (base + rng.normal(0.02, 0.1, 50)).tolist()),
        values_of("c", (base + rng.normal(0.05, 0.1, 50)).tolist()),
    ]
    pairs = [("b", "a"), ("c", "a")]

    both = choice_differences(models, pairs, "ndcg@10", num_resamples=4000)

    assert [(d.first, d.second) for d in both] == pairs
    low_p, high_p = sorted(d.p for d in both)
    assert sorted(d.holm_p for d in both) == pytest.approx([2 * low_p, max(2 * low_p, high_p)])
    draws = resample_means(models, num_resamples=4000).draws
    for column, found in enumerate(both, start=1):
        # 95 % for two comparisons: 97.5 % for each.
        expected = np.quantile(draws[:, column] - draws[:, 0], [0.0125, 0.9875])
        assert (found.corrected_low, found.corrected_high) == pytest.approx(tuple(expected))


def test_the_better_model_has_higher_values() -> None:
    rng = np.random.default_rng(0)
    good = rng.random(80)
    models = [
        values_of("good", good.tolist()),
        values_of("same", good.tolist()),
        values_of("bad", (good - 0.2 + rng.normal(0, 0.1, 80)).tolist()),
    ]
    pairs = [("good", "same"), ("good", "bad"), ("bad", "good")]

    same, forth, back = choice_differences(models, pairs, "ndcg@10")

    assert (same.value, same.low, same.high, same.p, same.better) == (0, 0, 0, 1, None)
    assert forth.better == back.better == "good"
    assert forth.value > 0.1
    assert back.value == -forth.value


def test_better_needs_both_the_corrected_interval_and_the_corrected_p() -> None:
    found = ChoiceDifference("a", "b", "ndcg@10", 0.1, 0.05, 0.2, 0.01, 0.01, 0.3, 0.02)

    def changed(**changes: Any) -> str | None:
        return dataclasses.replace(found, **changes).better

    assert found.better == "a"
    assert changed(value=-0.1, corrected_low=-0.3, corrected_high=-0.01) == "b"
    assert changed(corrected_low=-0.01) is None
    assert changed(holm_p=0.06) is None


def test_varying_seeds_alone_gives_students_t_test() -> None:
    """All users alike, so the seeds are all there is."""
    of_seeds = {"a": [0.9, 1.0, 1.2, 1.05, 0.98], "b": [1.1, 1.3, 1.2]}
    models = [
        UserValues(name, np.tile(np.array(values)[:, None], (1, 50)))
        for name, values in of_seeds.items()
    ]

    (found,) = choice_differences(
        models, [("a", "b")], "ndcg@10", num_resamples=100_000, vary_seeds=True
    )

    expected = ttest_ind(of_seeds["a"], of_seeds["b"])
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue, rel=0.05)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.005)


def test_a_model_in_no_pair_changes_nothing() -> None:
    rng = np.random.default_rng(8)
    first, second = (UserValues(name, rng.random((3, 12))) for name in "ab")
    steady = UserValues("c", np.ones((9, 12)))
    pair = [("a", "b")]
    assert choice_differences(
        [steady, first, second], pair, "mrr@5", vary_seeds=True
    ) == choice_differences([first, second], pair, "mrr@5", vary_seeds=True)


def test_the_seed_decides_the_draws() -> None:
    models = [values_of("a", [0.1, 0.2, 0.4])]
    one, again, other = (resample_means(models, seed=s).draws.tolist() for s in (1, 1, 2))
    assert one == again != other


def test_users_without_a_value_change_nothing() -> None:
    full = [values_of("a", [0.1, 0.2, 0.4], [0.3, 0.1, 0.1]), values_of("b", [0.5, 0.1, 0.0])]
    gaps = [
        values_of("a", [NAN, 0.1, 0.2, NAN, 0.4], [NAN, 0.3, 0.1, NAN, 0.1]),
        values_of("b", [NAN, 0.5, 0.1, NAN, 0.0]),
    ]
    pair = [("a", "b")]
    assert choice_differences(full, pair, "map@5") == choice_differences(gaps, pair, "map@5")


@pytest.mark.parametrize("other", [[0.1, NAN, 0.2], [NAN, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
def test_values_of_other_users_are_refused(other: list[float]) -> None:
    models = [values_of("a", [NAN, 0.1, 0.2]), values_of("b", other)]
    with pytest.raises(ValueError, match="values of different users"):
        choice_differences(models, [("a", "b")], "ndcg@10")


def test_a_single_user_with_a_value_is_refused() -> None:
    models = [values_of("a", [NAN, 0.1]), values_of("b", [NAN, 0.2])]
    with pytest.raises(ValueError, match="at least two of them who have a relevant movie, found 1"):
        choice_differences(models, [("a", "b")], "ndcg@10")


def test_no_pairs_have_no_differences() -> None:
    assert choice_differences([values_of("a", [0.1, 0.2])], [], "ndcg@10") == ()
