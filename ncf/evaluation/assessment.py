"""Compare several models by their predictions for the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ncf.evaluation.calibration import Calibration
from ncf.evaluation.significance import Difference, UserErrors, differences
from ncf.evaluation.slices import Slice, Slicing, errors_by_slice


@dataclass(frozen=True)
class Assessment:
    """Differences between models, their calibration, and errors of some of them by slice."""

    num_users: int
    """Number of users with rows."""
    differences: tuple[Difference, ...]
    """RMSE and MAE of each pair; empty if there is only one user."""
    slices: tuple[Slice, ...]
    """Errors by kind of row, of the models in ``closer``."""
    calibrations: tuple[Calibration, ...]
    """Calibration of every model."""


@dataclass(frozen=True)
class ScoredRows:
    """Rows with predictions."""

    users: npt.NDArray[np.int64]
    """``[N]`` user ids, including users without a training rating."""
    actual: npt.NDArray[np.floating]
    """``[N]`` true ratings."""
    slicings: tuple[Slicing, ...]


def assess(
    rows: ScoredRows,
    models: Iterable[tuple[str, npt.NDArray[np.floating]]],
    pairs: Sequence[tuple[str, str]],
    closer: Sequence[str],
    num_resamples: int,
) -> Assessment:
    """Compare models.

    Args:
        rows: the scored rows.
        models: name and predictions ``[S, N]`` of each model's seeds, consumed one at a time, so
            that they need not be in memory together.
        pairs: names of the two models of each comparison.
        closer: names of models whose errors are computed by slice.
        num_resamples: draws of the bootstrap.
    """
    codes, users = np.unique(rows.users, return_inverse=True)
    sums, calibrations, errors_of = [], [], {}
    for name, predictions in models:
        errors = predictions - rows.actual
        sums.append(UserErrors.of(name, users, len(codes), errors))
        calibrations.append(Calibration.of(name, predictions, rows.actual))
        if name in closer:
            errors_of[name] = errors
    return Assessment(
        num_users=len(codes),
        # Include the variation over seeds: the comparison is of methods, not of single models.
        differences=differences(sums, pairs, num_resamples=num_resamples, vary_seeds=True)
        if len(codes) > 1
        else (),
        slices=errors_by_slice(rows.slicings, [(name, errors_of[name]) for name in closer]),
        calibrations=tuple(calibrations),
    )
