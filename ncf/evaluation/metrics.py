"""RMSE, MAE and R2 as mergeable sums over all rows, never as means of batch means."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

_SHIFT = 3.0
"""Targets are summed about this value, near their middle, to keep R2 free of cancellation."""


@dataclass(frozen=True)
class ErrorSums:
    """Sums over rows from which the three metrics follow; ``a + b`` merges two sets of rows."""

    count: float = 0.0
    squared: float = 0.0
    """Sum of squared errors."""
    absolute: float = 0.0
    """Sum of absolute errors."""
    target: float = 0.0
    """Sum of (target - 3)."""
    target_squared: float = 0.0
    """Sum of (target - 3) squared."""

    @classmethod
    def of(cls, predictions: torch.Tensor, targets: torch.Tensor) -> ErrorSums:
        """Sums for ``predictions: [B]`` and ``targets: [B]``, accumulated in double precision."""
        return cls.from_vector(error_vector(predictions, targets))

    @classmethod
    def from_vector(cls, vector: torch.Tensor) -> ErrorSums:
        """The inverse of ``error_vector``: ``vector: [5]``."""
        return cls(*vector.tolist())

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def rmse(self) -> float:
        """Root of the mean squared error; NaN for no rows."""
        return math.sqrt(self.squared / self.count) if self.count else math.nan

    @property
    def mae(self) -> float:
        """Mean absolute error; NaN for no rows."""
        return self.absolute / self.count if self.count else math.nan

    @property
    def r2(self) -> float:
        """1 - squared error / squared deviation from the mean; NaN if all targets are equal."""
        if not self.count:
            return math.nan
        deviation = self.target_squared - self.target**2 / self.count
        return 1 - self.squared / deviation if deviation > 1e-12 * self.count else math.nan

    def as_dict(self) -> dict[str, float]:
        """The metrics under the names that ``metrics.json`` uses."""
        return {
            "rmse": self.rmse,
            "mae": self.mae,
            "r2": self.r2,
            "num_ratings": int(self.count),
        }


def error_vector(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The sums of ``ErrorSums`` as a tensor ``[5]`` on the inputs' device, ready to be added up."""
    # Accelerators without float64 exist, but none that Ray schedules as a GPU worker here.
    error = predictions.double() - targets.double()
    shifted = targets.double() - _SHIFT
    return torch.stack(
        [
            torch.full_like(error.sum(), float(error.numel())),
            (error * error).sum(),
            error.abs().sum(),
            shifted.sum(),
            (shifted * shifted).sum(),
        ]
    )


@dataclass(frozen=True)
class Scores:
    """Both views of a model's errors on one split."""

    stars: ErrorSums
    """Predicted against true ratings, in stars."""
    decayed: ErrorSums
    """The same, both multiplied by the row's time-decay weight: the original work's scale."""

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.stars + other.stars, self.decayed + other.decayed)

    def as_dict(self) -> dict[str, Any]:
        """Metrics in stars at the top, those on the decayed scale under ``decayed``."""
        return {**self.stars.as_dict(), "decayed": self.decayed.as_dict()}
