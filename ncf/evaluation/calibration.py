"""Calibration: whether the mean rating is near 4 where 4 was predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class CalibrationBin:
    """Rows with similar predictions."""

    num_rows: int
    predicted: float
    """Mean prediction."""
    actual: float
    """Mean true rating."""


@dataclass(frozen=True)
class Calibration:
    """Predictions of one model against true ratings, over all its training seeds."""

    model: str
    bins: tuple[CalibrationBin, ...]
    """By tenths of the predictions; fewer bins where many predictions are equal."""
    expected_error: float
    """Mean over rows of the distance between the mean prediction and mean rating of their bin."""
    slope: float | None
    """Slope of the least-squares line of ratings on predictions: 1 if calibrated, below 1 if
    predictions vary too much; None if all predictions are equal."""
    intercept: float | None
    """Intercept of that line."""

    @classmethod
    def of(
        cls,
        model: str,
        predictions: npt.NDArray[np.floating],
        actual: npt.NDArray[np.floating],
        num_bins: int = 10,
    ) -> Calibration:
        """Compute from each seed's ``predictions: [S, N]`` and true ratings ``actual: [N]``.

        Seeds are not averaged: the mean of their predictions would be better calibrated than
        any single model.
        """
        guesses = predictions.astype(np.float64).ravel()
        truths = np.tile(actual.astype(np.float64), len(predictions))
        # Equal predictions share a bin, regardless of the order of rows.
        edges = np.unique(np.quantile(guesses, np.arange(1, num_bins) / num_bins))
        groups = np.searchsorted(edges, guesses, side="right")
        counts = np.bincount(groups)
        used = np.flatnonzero(counts)
        predicted = np.bincount(groups, guesses)[used] / counts[used]
        found = np.bincount(groups, truths)[used] / counts[used]
        slope, intercept = _line(guesses, truths)
        return cls(
            model=model,
            bins=tuple(
                CalibrationBin(int(count), float(guess), float(truth))
                for count, guess, truth in zip(counts[used], predicted, found, strict=True)
            ),
            expected_error=float(np.average(np.abs(predicted - found), weights=counts[used])),
            slope=slope,
            intercept=intercept,
        )


def _line(
    guesses: npt.NDArray[np.float64], truths: npt.NDArray[np.float64]
) -> tuple[float | None, float | None]:
    """Slope and intercept of the least-squares line of ``truths: [N]`` on ``guesses: [N]``."""
    deviations = guesses - guesses.mean()
    variation = float(deviations @ deviations)
    if variation <= 1e-12 * len(guesses):
        return None, None
    slope = float(deviations @ truths) / variation
    return slope, float(truths.mean() - slope * guesses.mean())
