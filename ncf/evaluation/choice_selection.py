"""Choosing among choice models by the rankings of validation users."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ncf.evaluation.choice_data import ChoiceData
from ncf.evaluation.choice_scores import UserScores
from ncf.evaluation.holdout import Holdout
from ncf.evaluation.ranking_metrics import RankingMetric
from ncf.models.choice.base import ChoiceModel


@dataclass(frozen=True)
class ValidationUsers:
    """Ranks validation users, of whom there must be one.

    Relevant are held-out ratings of four stars or more. Without any, all models are equal.
    """

    data: ChoiceData
    metric: RankingMetric

    def value(self, model: ChoiceModel) -> float:
        """The metric; higher is better."""
        values, _ = self._ranked(model)
        return float(values.mean()) if len(values) else 0.0

    def choose(self, models: Iterable[ChoiceModel], tolerance: float) -> int:
        """The number of the best one of ``models``, counted from 0.

        Of all that are worse than the one with the highest metric by at most ``tolerance`` standard
        errors of the difference over users, it is the one that recommends the most movies. With a
        tolerance of 1 this is the one-standard-error rule of Breiman et al., Classification and
        Regression Trees, 1984, section 3.4.3, for variety instead of simplicity.
        """
        found = [self._ranked(model) for model in models]
        values = np.stack([each for each, _ in found])
        if not values.shape[1]:
            return 0
        means = values.mean(axis=1)
        best = int(means.argmax())
        behind = values[best] - values
        errors = behind.std(axis=1, ddof=1 if values.shape[1] > 1 else 0)
        is_close = means[best] - means <= tolerance * errors / np.sqrt(values.shape[1])
        counts = np.array([count for _, count in found])
        # Of those with the most movies, the one with the highest metric.
        return int(np.lexsort((means, np.where(is_close, counts, -1)))[-1])

    def _ranked(self, model: ChoiceModel) -> tuple[npt.NDArray[np.float64], int]:
        """``[V]`` the metric for users with a relevant movie, and how many movies are ranked."""
        ranked = self.data.rank(model, self._holdout, self.metric.at)
        scores = UserScores.of(ranked, self._holdout, "liked", [self.metric])
        values = scores.values[str(self.metric)][scores.num_relevant > 0]
        return values, len(np.unique(ranked[ranked >= 0]))

    @property
    def _holdout(self) -> Holdout:
        assert self.data.validation
        return self.data.validation
