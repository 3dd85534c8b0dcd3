"""Metrics of predicted ratings, from mergeable sums over all rows, never as means of batch means.

A metric is an entry of ``_DEFINITIONS``; ``METRICS`` has it for both scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import torch

_SHIFT = 3.0
"""Targets are summed about this value, near their middle, to keep R2 free of cancellation."""


@dataclass(frozen=True)
class ErrorSums:
    """Sums over rows from which the metrics follow; ``a + b`` merges two sets of rows."""

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
        """The inverse of ``error_vector``: ``vector: [NUM_SUMS]``."""
        return cls(*vector.tolist())

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def rmse(self) -> float:
        """Root of the mean squared error; NaN for no rows."""
        return _rmse(self)

    @property
    def mae(self) -> float:
        """Mean absolute error; NaN for no rows."""
        return _mae(self)

    @property
    def r2(self) -> float:
        """1 - squared error / squared deviation from the mean; NaN if all targets are equal."""
        return _r2(self)

    def as_dict(self) -> dict[str, float]:
        """The metrics under the names that ``metrics.json`` uses."""
        values = {name: of_sums(self) for name, _, of_sums in _DEFINITIONS}
        return {**values, "num_ratings": int(self.count)}


NUM_SUMS: Final = len(fields(ErrorSums))
"""Number of sums."""


def error_vector(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The sums of ``ErrorSums`` as a tensor ``[NUM_SUMS]`` on the device of the inputs."""
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


def _rmse(sums: ErrorSums) -> float:
    return math.sqrt(sums.squared / sums.count) if sums.count else math.nan


def _mae(sums: ErrorSums) -> float:
    return sums.absolute / sums.count if sums.count else math.nan


def _r2(sums: ErrorSums) -> float:
    if not sums.count:
        return math.nan
    deviation = sums.target_squared - sums.target**2 / sums.count
    return 1 - sums.squared / deviation if deviation > 1e-12 * sums.count else math.nan


Direction = Literal["min", "max"]
"""Whether less or more is better."""

_DEFINITIONS: Final[tuple[tuple[str, Direction, Callable[[ErrorSums], float]], ...]] = (
    ("rmse", "min", _rmse),
    ("mae", "min", _mae),
    ("r2", "max", _r2),
)
"""Name, direction and value of each metric; ``metrics.json`` has them in this order."""


@dataclass(frozen=True)
class Metric:
    """A number by which models, epochs and trials are compared."""

    name: str
    """Its key in ``METRICS``; the epoch's record has it as ``validation_<name>``."""
    direction: Direction
    needs: Literal["stars", "decayed"]
    """Which predictions it compares with the targets, see ``Scores``."""
    of_sums: Callable[[ErrorSums], float]

    def of(self, scores: Scores) -> float:
        """The metric's value; NaN where it is not defined, such as for no rows."""
        return self.of_sums(scores.stars if self.needs == "stars" else scores.decayed)

    def cost(self, scores: Scores) -> float:
        """The value where less is better, else its negative: what is to be minimised."""
        value = self.of(scores)
        return value if self.direction == "min" else -value


METRICS: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        *(Metric(name, way, "stars", of) for name, way, of in _DEFINITIONS),
        *(
            Metric(f"decayed_{name}", direction, "decayed", of)
            for name, direction, of in _DEFINITIONS
        ),
    )
}
"""All metrics by name: ``rmse`` is in stars, ``decayed_rmse`` on the scale rating * weight."""
