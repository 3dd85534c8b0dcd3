"""Which differences between models are more than chance, over the test rows of several folds.

All rows of all folds count as one set, a row that several folds test once for each of them. Users
are drawn with all their rows of all folds, as a user's rows resemble each other in whatever fold
they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from foundation.storage import Storage
from ncf.evaluation.significance import Difference, UserErrors, differences
from ray_jobs.results.comparison import Comparison, ModelResult, pairs, predicted

Integers = npt.NDArray[np.int64]

COLUMNS: Final = ("row", "user_id", "rating", "weight")
"""Of prepared rows, what the comparison looks at."""


@dataclass(frozen=True)
class Fold:
    """The comparison that was made on one fold, and what it was made on."""

    comparison: Comparison
    rows: pa.Table
    """``COLUMNS`` of its N test rows."""
    predictions: Storage
    """Folder of the predictions for them, in the same order."""

    def actual(self, scale: str) -> npt.NDArray[np.floating]:
        """``[N]`` what was to be predicted, on the scale ``stars`` or ``decayed``."""
        ratings: npt.NDArray[np.floating] = self.rows["rating"].to_numpy()
        return ratings * self.rows["weight"].to_numpy() if scale == "decayed" else ratings

    def integers(self, column: str) -> Integers:
        """``[N]`` a whole number of each test row, such as its user's id."""
        return np.asarray(self.rows[column].to_numpy(), dtype=np.int64)


@dataclass(frozen=True)
class AcrossFolds:
    """Models compared over the test rows of all folds together."""

    baseline: str
    """What losses and ensembles are measured against: on the validation rows, the lowest mean over
    folds of the RMSE; on the test rows if there are no others."""
    num_rows: int
    """Test rows of all folds, each as often as folds have it."""
    num_repeated: int
    """How many of them there would be less if each counted once."""
    num_users: int
    """Users that have test rows in any fold."""
    differences: tuple[Difference, ...]
    """RMSE and MAE of each pair; none if there is only one user."""
    against: tuple[str, ...] = ()
    """Names that all others are compared with, as in the comparison of each fold."""


def scale_of(comparisons: Sequence[Comparison]) -> str:
    """The scale that all folds can be measured on."""
    return "decayed" if all(c.scale == "decayed" for c in comparisons) else "stars"


def in_all(comparisons: Sequence[Comparison]) -> tuple[ModelResult, ...]:
    """The first fold's entries of models that every fold has."""
    names = [{entry.name for entry in c.entries} for c in comparisons]
    return tuple(e for e in comparisons[0].entries if all(e.name in fold for fold in names))


def missing(comparisons: Mapping[str, Comparison]) -> dict[str, tuple[str, ...]]:
    """Models that only some folds have, each with the names of the folds that lack it."""
    folds = {fold: {entry.name for entry in c.entries} for fold, c in comparisons.items()}
    # Of a dictionary, since a set has no order.
    names = dict.fromkeys(entry.name for c in comparisons.values() for entry in c.entries)
    lacking = {name: tuple(f for f, has in folds.items() if name not in has) for name in names}
    return {name: without for name, without in lacking.items() if without}


def pool(folds: Sequence[Fold], num_resamples: int) -> AcrossFolds:
    """Compare the models that every fold has, by ``num_resamples`` draws of the bootstrap."""
    comparisons = [fold.comparison for fold in folds]
    scale, entries = scale_of(comparisons), in_all(comparisons)
    baseline = _best_baseline(comparisons, entries, scale)
    names_in_all = [entry.name for entry in entries]
    against = tuple(name for name in comparisons[0].against if name in names_in_all)
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
        differences=differences(
            sums, pairs(entries, baseline, against), num_resamples=num_resamples, vary_seeds=True
        )
        if sums
        else (),
        against=against,
    )


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
