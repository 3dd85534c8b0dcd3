"""EASE of ratings alone, without content or context: unary, and with rating values.

Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019, https://arxiv.org/abs/1905.03375.
All ridges of a trial share one decomposition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from optuna.distributions import FloatDistribution

from ncf.baselines.choice.base import ChoiceBaselineSpec
from ncf.choice_config import EaseConfig, ValuesConfig
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Preprocessor
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.ease import EasePath

RIDGES: Final = (2700.0, 1650.0, 1000.0, 600.0, 370.0, 220.0, 135.0, 80.0, 50.0, 30.0)
"""Ridges tried with each trial's other settings, evenly spaced logarithms."""


@dataclass(frozen=True)
class EaseSettings:
    """Settings of EASE."""

    ridge: float = 220.0
    """L2 penalty."""
    stars: float = 0.0
    """By how much a star above the user's own mean raises the value of a rating, as
    ``choice.ease.values.stars``; 0 lets all ratings count the same."""


def ease_path(
    train: Interactions, preprocessor: Preprocessor, stars: float, ridges: tuple[float, ...]
) -> EasePath:
    """EASE for these ridges; ``stars`` as in the settings."""
    config = EaseConfig(ridges=ridges, values=ValuesConfig(stars=stars), content=0, context=0)
    return EasePath(train, preprocessor, config)


def _fit(train: Interactions, preprocessor: Preprocessor, settings: EaseSettings) -> ChoiceModel:
    path = ease_path(train, preprocessor, settings.stars, (settings.ridge,))
    return path.at(settings.ridge)


def _fit_path(
    train: Interactions, preprocessor: Preprocessor, settings: EaseSettings
) -> Iterator[tuple[EaseSettings, ChoiceModel]]:
    path = ease_path(train, preprocessor, settings.stars, RIDGES)
    for ridge in RIDGES:
        yield replace(settings, ridge=ridge), path.at(ridge)


EASE: Final = ChoiceBaselineSpec[EaseSettings](
    "ease", "EASE", EaseSettings(), _fit, fit_path=_fit_path
)

EASE_WITH_VALUES: Final = ChoiceBaselineSpec[EaseSettings](
    "ease-with-values",
    "EASE with rating values",
    EaseSettings(stars=0.4),
    _fit,
    {"stars": FloatDistribution(0.0, 1.5)},
    fit_path=_fit_path,
)
