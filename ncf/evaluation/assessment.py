"""What the predictions of several models for the same rows tell about the models."""

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
    """Differences between models, and a closer look at some of them."""

    num_users: int
    """Users that have rows."""
    differences: tuple[Difference, ...]
    """RMSE and MAE of each pair; none if there is one user alone."""
    slices: tuple[Slice, ...]
    """Errors of the models looked at more closely, by kind of row."""
    calibrations: tuple[Calibration, ...]
    """Of every model."""


@dataclass(frozen=True)
class ScoredRows:
    """Rows that were predicted."""

    users: npt.NDArray[np.int64]
    """``[N]`` ids, also of users without a training rating."""
    actual: npt.NDArray[np.floating]
    """``[N]`` what was to be predicted."""
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
        rows: what was predicted.
        models: name and predictions ``[S, N]`` of each model's seeds; read one after the other, so
            that they need not be in memory together.
        pairs: names of models whose errors are compared.
        closer: names of models whose errors are divided by kinds of rows.
        num_resamples: draws of the bootstrap.
    """
    codes, users = np.unique(rows.users, return_inverse=True)
    sums, calibrations, looked_at = [], [], {}
    for name, predictions in models:
        errors = predictions - rows.actual
        sums.append(UserErrors.of(name, users, len(codes), errors))
        calibrations.append(Calibration.of(name, predictions, rows.actual))
        if name in closer:
            looked_at[name] = errors
    return Assessment(
        num_users=len(codes),
        # Other seeds count too: the question is which loss is better, not which of its models.
        differences=differences(sums, pairs, num_resamples=num_resamples, vary_seeds=True)
        if len(codes) > 1
        else (),
        slices=errors_by_slice(rows.slicings, [(name, looked_at[name]) for name in closer]),
        calibrations=tuple(calibrations),
    )
