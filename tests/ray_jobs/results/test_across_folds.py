"""Folds that are written here by hand, and what all of them tell together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from foundation.storage import Storage
from ncf.evaluation.assessment import Assessment
from ncf.evaluation.predictions import Predictions
from ncf.evaluation.significance import UserErrors, differences
from ray_jobs.results.across_folds import Fold, FoldDifference, missing, pool, scale_of
from ray_jobs.results.comparison import Comparison, Kind, ModelResult
from ray_jobs.stages.cross_validation import Summary, of_folds

Errors = dict[str, list[list[float]]]
KINDS: dict[str, Kind] = {"model": "model", "ensemble": "ensemble"}


class Maker:
    """Makes folds whose models err by given amounts on ratings of 3 stars."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __call__(
        self,
        users: list[int],
        errors: Errors,
        rows: list[int] | None = None,
        validation: dict[str, float] | None = None,
        scale: str = "stars",
    ) -> Fold:
        """``errors`` by model and seed; the rows of a fold are its own unless given."""
        self._count += 1
        own = [1000 * self._count + n for n in range(len(users))]
        table = pa.table(
            {
                "row": rows or own,
                "user_id": users,
                "rating": np.full(len(users), 3.0),
                "weight": np.full(len(users), 0.5),
            }
        )
        folder = Storage.at(self._folder / str(self._count))
        entries = []
        for name, of_seeds in errors.items():
            files = []
            for seed, of_rows in enumerate(of_seeds):
                stars = np.array(of_rows, np.float32) + np.float32(3)
                file = f"{name}-{seed}.parquet"
                (folder / file).write_table(
                    Predictions(stars, stars * np.float32(0.5)).to_arrow(np.arange(len(users)))
                )
                files.append(file)
            figures = [root_mean_square(of_rows) for of_rows in of_seeds]
            on_validation = (validation or {}).get(name)
            entries.append(
                ModelResult(
                    name,
                    "",
                    KINDS.get(name.split()[0], "baseline"),
                    test=tuple(scores(f) for f in figures),
                    validation=(scores(on_validation),) if on_validation else (),
                    predictions=tuple(files),
                )
            )
        return Fold(comparison(tuple(entries), scale), table, folder)


def root_mean_square(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def scores(rmse: float) -> dict[str, object]:
    values = {"rmse": rmse, "mae": rmse, "r2": 0.0}
    return values | {"decayed": values}


def comparison(entries: tuple[ModelResult, ...], scale: str = "stars") -> Comparison:
    nothing = Assessment(0, (), (), ())
    return Comparison(entries, scale, 0, 0, False, "", "", nothing)


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def test_differences_are_those_of_all_rows_together(make: Maker) -> None:
    first = make([7, 9], {"bias": [[2.0, 0.0]], "model": [[1.0, 1.0], [0.0, 1.0]]})
    second = make([9, 8, 8], {"bias": [[1.0, 2.0, 2.0]], "model": [[0, 2.0, 0], [1.0, 0, 0]]})

    found = pool([first, second], 200)

    assert (found.baseline, found.num_rows, found.num_users) == ("bias", 5, 3)
    assert found.num_repeated == 0
    rmse, mae = found.differences
    assert (rmse.first, rmse.second, rmse.metric) == ("model", "bias", "rmse")
    # Sums of squares of the model's seeds are 6 and 2, of the bias 13; of 5 rows.
    expected = (np.sqrt(6 / 5) + np.sqrt(2 / 5)) / 2 - np.sqrt(13 / 5)
    assert rmse.value == pytest.approx(expected)
    assert mae.value == pytest.approx((4 / 5 + 2 / 5) / 2 - 7 / 5)


def test_the_intervals_are_those_of_one_set_of_rows(make: Maker) -> None:
    rng = np.random.default_rng(2)
    users = rng.integers(0, 12, 60)
    errors = {name: rng.normal(size=(seeds, 60)) for name, seeds in (("bias", 1), ("model", 3))}
    folds = [
        make(users[part].tolist(), {name: e[:, part].tolist() for name, e in errors.items()})
        for part in (slice(0, 25), slice(25, 60))
    ]

    found = pool(folds, 300)

    codes = np.unique(users, return_inverse=True)[1]
    sums = [UserErrors.of(name, codes, codes.max() + 1, e) for name, e in errors.items()]
    together = differences(sums, [("model", "bias")], num_resamples=300, vary_seeds=True)
    for ours, theirs in zip(found.differences, together, strict=True):
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-5)
        assert ours.p == theirs.p


def test_a_user_brings_the_rows_of_all_folds(make: Maker) -> None:
    """What either model gains on a user's row of one fold it loses on that of the other.

    So no draw of users tells them apart, while draws from each fold by itself would.
    """
    users = list(range(20))
    half, other = [1.0] * 10 + [0.0] * 10, [0.0] * 10 + [1.0] * 10
    folds = [
        make(users, {"bias": [half], "model": [other]}),
        make(users[::-1], {"bias": [half], "model": [other]}),
    ]

    for found in pool(folds, 500).differences:
        assert found.low == pytest.approx(0, abs=1e-12)
        assert found.high == pytest.approx(0, abs=1e-12)
        assert found.better is None


def test_rows_of_several_folds_are_counted(make: Maker) -> None:
    errors: Errors = {"bias": [[1.0, 1.0, 1.0]], "model": [[0.0, 0.0, 1.0]]}

    found = pool([make([1, 2, 3], errors, [5, 6, 7]), make([2, 3, 4], errors, [6, 7, 8])], 100)

    assert (found.num_rows, found.num_repeated, found.num_users) == (6, 2, 4)


def test_the_baseline_is_the_best_on_the_validation_rows_of_all_folds(make: Maker) -> None:
    errors: Errors = {"mean": [[0.1]], "bias": [[0.9]], "model": [[0.5]], "ensemble": [[0.4]]}
    folds = [
        make([1], errors, validation={"mean": 0.7, "bias": 0.8, "model": 0.1}),
        make([2], errors, validation={"mean": 1.0, "bias": 0.8, "model": 0.1}),
    ]

    found = pool(folds, 100)

    assert found.baseline == "bias"
    assert [(d.first, d.second) for d in found.differences] == [
        *[("model", "bias")] * 2,
        *[("ensemble", "bias")] * 2,
    ]


def test_references_are_those_of_the_folds(make: Maker) -> None:
    errors: Errors = {"mean": [[0.1, 0.2]], "bias": [[0.9, 0.3]], "model": [[0.5, 0.1]]}
    folds = [make([1, 2], errors), make([2, 3], errors)]
    folds = [replace(f, comparison=replace(f.comparison, against=("bias", "trees"))) for f in folds]

    found = pool(folds, 100)

    # One that some fold lacks cannot be compared with.
    assert found.against == ("bias",)
    assert [(d.first, d.second) for d in found.differences if d.metric == "mae"] == [
        ("mean", "bias"),
        ("model", "bias"),
    ]


def test_one_user_alone_allows_no_comparison(make: Maker) -> None:
    errors: Errors = {"bias": [[1.0]], "model": [[0.0]]}

    found = pool([make([4], errors), make([4], errors)], 100)

    assert (found.num_users, found.num_rows, found.differences) == (1, 2, ())


def test_the_decayed_scale_is_used_only_if_all_folds_have_it(make: Maker) -> None:
    errors: Errors = {"bias": [[1.0, 1.0]], "model": [[0.0, 0.0]]}
    decayed, stars = (make([1, 2], errors, scale=scale) for scale in ("decayed", "stars"))

    assert scale_of([decayed.comparison, stars.comparison]) == "stars"
    assert pool([decayed, stars], 100).differences[0].value == pytest.approx(-1)
    assert pool([decayed, decayed], 100).differences[0].value == pytest.approx(-0.5)


def test_a_model_that_some_folds_lack_is_named_with_these_folds(make: Maker) -> None:
    full: Errors = {"bias": [[1.0, 1.0]], "trees": [[0.0, 1.0]], "model": [[0.0, 0.0]]}
    less = {name: errors for name, errors in full.items() if name != "trees"}
    folds = {
        "u1": make([1, 2], less),
        "u2": make([1, 2], full),
        "u3": make([1, 2], less),
    }

    summary = Summary.of(folds, 100)

    comparisons = {name: fold.comparison for name, fold in folds.items()}
    assert missing(comparisons) == {"trees": ("u1", "u3")}
    assert [errors.model for errors in of_folds(comparisons)] == ["bias", "model"]
    assert summary.warnings == ("trees is left out: it is missing in u1, u3",)
    assert summary.to_json()["missing"] == {"trees": ("u1", "u3")}
    assert missing({"u2": comparisons["u2"]}) == {}


def test_the_interval_over_splits_is_wider_than_that_of_independent_ones() -> None:
    """By hand: mean -2, variance 1, and Student's quantile for 2 degrees of freedom 4.3027."""
    found = FoldDifference.of("a", "b", [-3.0, -2.0, -1.0], test_share=0.25)
    half = 4.30265273 * np.sqrt(1 / 3 + 0.25)
    assert (found.mean, found.values) == (-2.0, (-3.0, -2.0, -1.0))
    assert found.low == pytest.approx(-2 - half)
    assert found.high == pytest.approx(-2 + half)
    one = FoldDifference.of("a", "b", [-3.0], test_share=0.25)
    assert (one.mean, one.low, one.high) == (-3.0, None, None)


def test_differences_over_folds_are_those_of_the_folds(make: Maker) -> None:
    folds = [
        make([1, 2, 3, 4], {"mean": [[1.0] * 4], "model": [[0.5] * 4, [0.7] * 4]}),
        make([1, 2, 3, 4], {"mean": [[2.0] * 4], "model": [[1.0] * 4, [1.0] * 4]}),
    ]
    folds = [replace(f, comparison=replace(f.comparison, num_train=16)) for f in folds]
    (found,) = pool(folds, 100).over_folds
    assert (found.first, found.second) == ("model", "mean")
    assert found.values == pytest.approx((0.6 - 1.0, 1.0 - 2.0))
    share = sum(f.comparison.num_test for f in folds) / 32
    expected = FoldDifference.of("model", "mean", found.values, share)
    assert (found.mean, found.low, found.high) == (expected.mean, expected.low, expected.high)
