"""Weights of a blend's members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ncf.data.preprocessor import Floats


@dataclass(frozen=True)
class Weights:
    """How the predictions of K members become one: ``center`` plus the weighted sum of each
    prediction minus ``center``.

    With weights whose sum is below 1, the blend varies less than its members do, as it should where
    all of them vary too much; above 1, more.
    """

    center: float
    """Mean rating of the rows that the weights were fitted to."""
    of_members: tuple[float, ...]
    """``[K]`` 0 or more."""

    @classmethod
    def fit(cls, predictions: Floats, ratings: Floats) -> Self:
        """The weights of least squared error: ``predictions: [K, N]``, ``ratings: [N]``.

        The rows must be other ones than those that the members learned from. Lawson and Hanson,
        Solving Least Squares Problems, 1974, chapter 23.
        """
        # Imported here because it takes half a second, and only training needs it.
        from scipy.optimize import nnls

        center = float(ratings.mean())
        found, _ = nnls(predictions.T - center, ratings - center)
        return cls(center, tuple(float(weight) for weight in found))

    @classmethod
    def cross_fitted(cls, predictions: Floats, ratings: Floats, folds: int = 5) -> Floats:
        """``[N]`` what blends predict whose weights were fitted to the other folds' rows.

        For an estimate of the blend's error on the very rows that its weights are fitted to; takes
        what ``fit`` takes.
        """
        fold = np.random.default_rng(0).permutation(len(ratings)) % folds
        result = np.empty(len(ratings))
        for number in range(folds):
            inside = fold == number
            weights = cls.fit(predictions[:, ~inside], ratings[~inside])
            result[inside] = weights.combine(predictions[:, inside])
        return result

    def combine(self, predictions: Floats) -> Floats:
        """``[K, B] -> [B]``."""
        combined: Floats = self.center + np.array(self.of_members) @ (predictions - self.center)
        return combined
