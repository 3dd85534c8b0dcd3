"""Significance of differences between models over the test rows of several folds.

All rows of all folds count as one set; a row that several folds test counts once for each. The
bootstrap draws a user with all of the user's rows of all folds, because these are correlated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import t as student_t

from foundation.storage import Storage
from ncf.evaluation.significance import Difference, UserErrors, differences
from ray_jobs.results.comparison import Comparison, ModelResult, pairs, predicted

Integers = npt.NDArray[np.int64]

COLUMNS: Final = ("row", "user_id", "rating", "weight")
"""Columns of prepared rows that a comparison over folds needs."""


@dataclass(frozen=True)
class Fold:
    """The comparison on one fold, with its test rows."""

    comparison: Comparison
    rows: pa.Table
    """``COLUMNS`` of its N test rows."""
    predictions: Storage
    """Folder with predictions for these rows, in the same order."""

    def actual(self, scale: str) -> npt.NDArray[np.floating]:
        """``[N]`` true values, on the scale ``stars`` or ``decayed``."""
        ratings: npt.NDArray[np.floating] = self.rows["rating"].to_numpy()
        return ratings * self.rows["weight"].to_numpy() if scale == "decayed" else ratings

    def integers(self, column: str) -> Integers:
        """``[N]`` an integer column of the test rows, such as user ids."""
        return np.asarray(self.rows[column].to_numpy(), dtype=np.int64)


@dataclass(frozen=True)
class FoldDifference:
    """The RMSE of one model minus that of another, on every fold."""

    first: str
    second: str
    values: tuple[float, ...]
    """One a fold, each of means over seeds."""
    mean: float
    low: float | None
    """Lower end of the 95 % interval of the mean over random splits; None for one fold."""
    high: float | None
    """Upper end of it."""

    @classmethod
    def of(cls, first: str, second: str, values: Sequence[float], test_share: float) -> Self:
        """The interval of Nadeau and Bengio, Inference for the Generalization Error, 2003, section
        5.1: that of Student with a variance that is larger, because splits share training rows.

        ``test_share`` is the number of test rows over that of training rows.
        """
        number, center = len(values), mean(values)
        low = high = None
        if number > 1:
            spread = stdev(values) * math.sqrt(1 / number + test_share)
            half = float(student_t.ppf(0.975, number - 1)) * spread
            low, high = center - half, center + half
        return cls(first, second, tuple(values), center, low, high)


@dataclass(frozen=True)
class AcrossFolds:
    """Models compared over the test rows of all folds together."""

    baseline: str
    """The baseline with the lowest mean RMSE over folds on the validation rows, or on the test rows
    if there are no validation rows. Models and ensembles are compared with it."""
    num_rows: int
    """Test rows of all folds; a row of several folds counts several times."""
    num_repeated: int
    """``num_rows`` minus the number of different rows."""
    num_users: int
    """Users with test rows in any fold."""
    differences: tuple[Difference, ...]
    """RMSE and MAE of each pair; none if there is only one user."""
    against: tuple[str, ...] = ()
    """Names that all others are compared with, as in the comparison of each fold."""
    named_differences: tuple[tuple[str, str], ...] = ()
    """The only pairs that are compared, if any are named."""
    over_folds: tuple[FoldDifference, ...] = ()
    """Differences of the RMSE of each pair, fold by fold."""


def scale_of(comparisons: Sequence[Comparison]) -> str:
    """The scale that all folds are scored on."""
    return "decayed" if all(c.scale == "decayed" for c in comparisons) else "stars"


def in_all(comparisons: Sequence[Comparison]) -> tuple[ModelResult, ...]:
    """The first fold's entries of models that every fold has."""
    names = [{entry.name for entry in c.entries} for c in comparisons]
    return tuple(e for e in comparisons[0].entries if all(e.name in fold for fold in names))


def missing(comparisons: Mapping[str, Comparison]) -> dict[str, tuple[str, ...]]:
    """Models that some folds lack, with the names of these folds."""
    folds = {fold: {entry.name for entry in c.entries} for fold, c in comparisons.items()}
    # A dictionary keeps the order; a set would not.
    names = dict.fromkeys(entry.name for c in comparisons.values() for entry in c.entries)
    lacking = {name: tuple(f for f, has in folds.items() if name not in has) for name in names}
    return {name: without for name, without in lacking.items() if without}


def pool(folds: Sequence[Fold], num_resamples: int) -> AcrossFolds:
    """Compare the models that every fold has, with ``num_resamples`` draws of the bootstrap."""
    comparisons = [fold.comparison for fold in folds]
    scale, entries = scale_of(comparisons), in_all(comparisons)
    baseline = _best_baseline(comparisons, entries, scale)
    names_in_all = [entry.name for entry in entries]
    against = tuple(name for name in comparisons[0].against if name in names_in_all)
    compared = pairs(entries, baseline, against, comparisons[0].named_differences)
    users = [fold.integers("user_id") for fold in folds]
    rows = np.concatenate([fold.integers("row") for fold in folds])
    known = np.unique(np.concatenate(users))
    numbers = [np.searchsorted(known, of_fold) for of_fold in users]
    sums = _errors(folds, numbers, len(known), entries, scale) if len(known) > 1 else []
    return AcrossFolds(
        baseline=baseline,
        num_rows=len(rows),
        num_repeated=len(rows) - len(np.unique(rows)),
        num_users=len(known),
        # As in a comparison: the question is which method is better, not which of its models.
        differences=differences(sums, compared, num_resamples=num_resamples, vary_seeds=True)
        if sums
        else (),
        against=against,
        named_differences=comparisons[0].named_differences,
        over_folds=tuple(_over_folds(comparisons, pair, scale) for pair in compared),
    )


def _over_folds(
    comparisons: Sequence[Comparison], pair: tuple[str, str], scale: str
) -> FoldDifference:
    values = []
    for comparison in comparisons:
        rmse = {e.name: e.figure("rmse", scale)[0] for e in comparison.entries if e.name in pair}
        values.append(rmse[pair[0]] - rmse[pair[1]])
    num_train = sum(comparison.num_train for comparison in comparisons)
    num_test = sum(comparison.num_test for comparison in comparisons)
    return FoldDifference.of(*pair, values, num_test / max(num_train, 1))


def _best_baseline(
    comparisons: Sequence[Comparison], entries: Sequence[ModelResult], scale: str
) -> str:
    """The one with the lowest mean over folds; see ``AcrossFolds.baseline``."""
    errors: dict[str, list[float]] = {e.name: [] for e in entries if e.kind == "baseline"}
    for comparison in comparisons:
        for entry in comparison.entries:
            if entry.name in errors:
                errors[entry.name].append(entry.figure("rmse", scale, validation=True)[0])
    return min(errors, key=lambda name: mean(errors[name]))


def _errors(
    folds: Sequence[Fold],
    users: Sequence[Integers],
    num_users: int,
    entries: Sequence[ModelResult],
    scale: str,
) -> list[UserErrors]:
    """The errors of each model over all folds; ``users`` are numbers of each fold's rows' users."""
    parts: dict[str, list[UserErrors]] = {entry.name: [] for entry in entries}
    for fold, numbers in zip(folds, users, strict=True):
        actual = fold.actual(scale)
        for entry in fold.comparison.entries:
            if entry.name in parts:
                # One model at a time, so that the predictions of all need not be in memory.
                errors = predicted(entry, scale, fold.predictions) - actual
                parts[entry.name].append(UserErrors.of(entry.name, numbers, num_users, errors))
    return [UserErrors.together(of_folds) for of_folds in parts.values()]
