"""The most popular movies, of all time and lately: the same ranking for every user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from optuna.distributions import FloatDistribution

from ncf.baselines.choice.base import ChoiceBaselineSpec
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Integers, Preprocessor
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.values import SECONDS_PER_YEAR


@dataclass(frozen=True)
class PopularSettings:
    """Settings of the most popular: none."""


@dataclass(frozen=True)
class PopularLatelySettings:
    """Settings of the most popular lately."""

    years: float = 1.0
    """Ratings count that are at most so old when the newest training rating is given."""


class Popular(ChoiceModel):
    """One ranking for all users.

    Args:
        order: ``[M]`` positions of all movies, the most popular first.
    """

    def __init__(self, order: Integers) -> None:
        self.order = order
        self._scores = torch.empty(len(order))
        # Positions are exact in float32 up to 16 million, counts added to fractions are not.
        self._scores[torch.from_numpy(order)] = torch.arange(len(order), 0, -1).float()

    def scores(self, known: Interactions) -> torch.Tensor:
        """``[B, M]``: M for the most popular movie, 1 for the least."""
        return self._scores.repeat(len(known), 1)


def most_popular(train: Interactions) -> Popular:
    """Movies by their number of training ratings; of equal ones, the first in the movie table."""
    return Popular(np.argsort(-train.movie_counts(), kind="stable"))


def popular_lately(train: Interactions, years: float) -> Popular:
    """Movies by their number of ratings in the last ``years`` before the newest training rating.

    Of equal ones the most popular of all time comes first, then the first in the movie table.
    """
    newest = train.times.max(initial=0)
    recent = train.where(newest - train.times <= years * SECONDS_PER_YEAR)
    return Popular(np.lexsort((-train.movie_counts(), -recent.movie_counts())))


def _fit_popular(train: Interactions, preprocessor: Preprocessor, _: PopularSettings) -> Popular:
    del preprocessor
    return most_popular(train)


def _fit_lately(
    train: Interactions, preprocessor: Preprocessor, settings: PopularLatelySettings
) -> Popular:
    del preprocessor
    return popular_lately(train, settings.years)


POPULAR: Final = ChoiceBaselineSpec[PopularSettings](
    "popular", "most popular", PopularSettings(), _fit_popular
)

POPULAR_LATELY: Final = ChoiceBaselineSpec[PopularLatelySettings](
    "popular-lately",
    "most popular lately",
    PopularLatelySettings(),
    _fit_lately,
    {"years": FloatDistribution(0.25, 10.0, log=True)},
)
