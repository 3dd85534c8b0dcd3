"""How far ratings are from their predictions: standard deviations and intervals, and their quality.

The standard deviation of a row is the exponential of a linear function of a few features of the
row, with the coefficients of highest likelihood on the validation rows. Intervals are split
conformal: the quantiles of the validation rows' errors in standard deviations, of Lei et al.,
Distribution-Free Predictive Inference for Regression, 2018, section 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from ncf.data.preprocessor import Floats

LEVELS: Final = (0.5, 0.8, 0.9, 0.95)
"""Shares of ratings that intervals are to hold."""

_RIDGE: Final = 1e-3
"""Penalty of the squared coefficients of standardised features, per row."""
_SMALLEST_SD: Final = 0.05
"""Stars; half a step of the scale is 0.25."""

Features = Mapping[str, Floats]
"""Columns ``[N]`` by name."""


@dataclass(frozen=True)
class Intervals:
    """Of N predictions."""

    sd: Floats
    """``[N]`` standard deviations of the ratings, in stars."""
    low: Floats
    """``[N]`` lower ends, in stars."""
    high: Floats
    """``[N]`` upper ends."""


@dataclass(frozen=True)
class Uncertainty:
    """What was learned of the size of errors on the validation rows."""

    names: tuple[str, ...]
    """``[F]`` features."""
    means: tuple[float, ...]
    """``[F]`` on the validation rows."""
    scales: tuple[float, ...]
    """``[F]`` standard deviations there."""
    coefficients: tuple[float, ...]
    """``[F + 1]`` of the standardised features, and the constant."""
    quantiles: dict[str, tuple[float, float]]
    """By level as a text, such as ``"0.9"``: the quantiles of (rating - prediction) / sd that
    enclose this share of the validation rows, half of the rest on each side."""

    @classmethod
    def fit(cls, features: Features, errors: Floats) -> Self:
        """Fit to validation rows: their ``features``, and ``errors: [N]``, rating minus prediction.

        Predictions must not have been fitted to these rows.
        """
        names = tuple(features)
        columns = np.column_stack([features[name] for name in names])
        means, deviations = columns.mean(axis=0), columns.std(axis=0)
        scales = np.where(deviations > 0, deviations, 1.0)
        inputs = np.column_stack([(columns - means) / scales, np.ones(len(errors))])

        def loss(coefficients: Floats) -> tuple[float, Floats]:
            logs = inputs @ coefficients
            squares = (errors * np.exp(-logs)) ** 2
            penalty = _RIDGE * coefficients[:-1]
            value = np.mean(logs + squares / 2) + penalty @ coefficients[:-1] / 2
            slope = inputs.T @ (1 - squares) / len(errors)
            return float(value), slope + np.append(penalty, 0.0)

        # Imported here because it takes half a second, and only training needs it.
        from scipy.optimize import minimize

        start = np.zeros(inputs.shape[1])
        start[-1] = np.log(max(float(np.sqrt(np.mean(errors**2))), _SMALLEST_SD))
        coefficients = minimize(loss, start, jac=True, method="L-BFGS-B").x
        sd = _sd(inputs, coefficients)
        return cls(
            names,
            tuple(means.tolist()),
            tuple(scales.tolist()),
            tuple(coefficients.tolist()),
            {str(level): _enclosing(errors / sd, level) for level in LEVELS},
        )

    def sd(self, features: Features) -> Floats:
        """``[N]`` standard deviations in stars."""
        columns = np.column_stack([features[name] for name in self.names])
        inputs = (columns - np.array(self.means)) / np.array(self.scales)
        with_constant = np.column_stack([inputs, np.ones(len(inputs))])
        return _sd(with_constant, np.array(self.coefficients))

    def intervals(
        self, stars: Floats, features: Features, level: float, lowest: float, highest: float
    ) -> Intervals:
        """Intervals around ``stars: [N]`` within the scale of ratings.

        Raises:
            ValueError: if ``level`` is none of ``LEVELS``.
        """
        if str(level) not in self.quantiles:
            known = ", ".join(self.quantiles)
            raise ValueError(f"level: found {level!r}, expected one of {known}")
        below, above = self.quantiles[str(level)]
        sd = self.sd(features)
        low, high = stars + below * sd, stars + above * sd
        return Intervals(sd, np.clip(low, lowest, highest), np.clip(high, lowest, highest))

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "names": list(self.names),
            "means": list(self.means),
            "scales": list(self.scales),
            "coefficients": list(self.coefficients),
            "quantiles": {level: list(ends) for level, ends in self.quantiles.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` made.

        Raises:
            ValueError: if lengths do not fit together, or a number is none.
            KeyError: if something is missing.
        """
        names = tuple(map(str, values["names"]))
        means, scales, coefficients = (
            tuple(map(float, values[key])) for key in ("means", "scales", "coefficients")
        )
        quantiles = {
            str(level): (float(low), float(high))
            for level, (low, high) in values["quantiles"].items()
        }
        if not len(names) == len(means) == len(scales) == len(coefficients) - 1:
            raise ValueError("the numbers of features and coefficients differ")
        if not all(np.isfinite([*means, *scales, *coefficients])) or 0.0 in scales:
            raise ValueError("a mean, scale or coefficient is not a usable number")
        return cls(names, means, scales, coefficients, quantiles)


@dataclass(frozen=True)
class UncertaintyScores:
    """How good standard deviations and intervals are on some rows, beside one constant deviation.

    The constant is the root mean squared error of the validation rows, its intervals are those of
    a normal distribution.
    """

    num_ratings: int
    coverage: dict[str, float]
    """By level: the share of ratings inside their interval, which should be the level."""
    width: dict[str, float]
    """By level: mean width of the intervals in stars."""
    nll: float
    """Mean negative log likelihood of the ratings, by normal distributions."""
    constant_nll: float
    """The same with the constant."""
    crps: float
    """Mean continuous ranked probability score of the normal distributions, in stars."""
    constant_crps: float
    """The same with the constant."""

    @classmethod
    def of(
        cls,
        intervals: Mapping[float, Intervals],
        stars: Floats,
        ratings: Floats,
        constant_sd: float,
    ) -> Self:
        """Score the ``intervals`` by level around ``stars: [N]`` for true ``ratings: [N]``."""
        from scipy.stats import norm

        sd = next(iter(intervals.values())).sd
        constant = np.full(len(ratings), constant_sd)
        return cls(
            num_ratings=len(ratings),
            coverage={
                str(level): float(np.mean((each.low <= ratings) & (ratings <= each.high)))
                for level, each in intervals.items()
            },
            width={str(level): float(np.mean(i.high - i.low)) for level, i in intervals.items()},
            nll=float(-norm.logpdf(ratings, stars, sd).mean()),
            constant_nll=float(-norm.logpdf(ratings, stars, constant).mean()),
            crps=float(crps(ratings, stars, sd).mean()),
            constant_crps=float(crps(ratings, stars, constant).mean()),
        )


def crps(ratings: Floats, means: Floats, sd: Floats) -> Floats:
    """``[N]`` continuous ranked probability score of normal distributions.

    Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, 2007,
    equation 21.
    """
    from scipy.stats import norm

    z = (ratings - means) / sd
    score: Floats = sd * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    return score


def _sd(inputs: Floats, coefficients: Floats) -> Floats:
    sd: Floats = np.maximum(np.exp(inputs @ coefficients), _SMALLEST_SD)
    return sd


def _enclosing(standardised: Floats, level: float) -> tuple[float, float]:
    """The quantiles that leave half of ``1 - level`` on each side, a little wider for few rows."""
    number = len(standardised)
    rank = min(number, math.ceil((number + 1) * (1 + level) / 2))
    ordered = np.sort(standardised)
    return float(ordered[number - rank]), float(ordered[rank - 1])
