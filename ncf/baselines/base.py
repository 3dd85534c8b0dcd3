"""What all baselines share: predict, score, be tuned on validation rows and be fitted again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

import numpy as np
import torch

from ncf.batches import Batch
from ncf.fitted import FittedState, Floats, Integers
from ncf.metrics import ErrorSums, Scores

S = TypeVar("S")

DEFAULT_TRIALS: Final = 24
"""Settings tried of a baseline whose every trial takes seconds."""


@dataclass(frozen=True)
class Baseline(ABC):
    """A named prediction in stars for every row."""

    name: str
    """As tables show it."""
    detail: str
    """How it was fitted, with the settings that were chosen."""

    @abstractmethod
    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""

    def score(self, rows: Batch, fitted: FittedState) -> Scores:
        """Errors in stars and on the decayed scale, predictions clipped as the models' are."""
        stars = self.predict(rows).clamp(fitted.rating_min, fitted.rating_max)
        return Scores(
            ErrorSums.of(stars, rows.ratings),
            ErrorSums.of(stars * rows.weights, rows.ratings * rows.weights),
        )


@dataclass(frozen=True)
class Recipe(Generic[S]):
    """One kind of baseline: how its settings are chosen, and how it is fitted with them."""

    name: str
    """The baseline's."""
    tune: Callable[[Batch, Batch | None, FittedState, int], S]
    """``tune(train, validation, fitted, num_trials)``: settings; the defaults without validation
    rows. Where trying settings costs little, a whole grid is tried instead of ``num_trials``."""
    fit: Callable[[Batch, FittedState, S], Baseline]
    """``fit(rows, fitted, settings)``."""


@dataclass(frozen=True)
class Tuned(Generic[S]):
    """A baseline with settings chosen on the validation rows."""

    recipe: Recipe[S]
    """To fit it again with."""
    settings: S
    """What was chosen."""
    baseline: Baseline
    """Fitted on the training rows."""

    @property
    def is_seeded(self) -> bool:
        """Whether anything is drawn at random, so that seeds make a difference."""
        return hasattr(self.settings, "seed")

    def refit(
        self, rows: Batch, fitted: FittedState, seeds: Sequence[int] = (0,)
    ) -> tuple[Baseline, ...]:
        """The same settings fitted on ``rows``, such as training and validation rows together.

        Once with each seed; just once where nothing is drawn at random.
        """
        settings: Any = self.settings
        if not self.is_seeded:
            return (self.recipe.fit(rows, fitted, settings),)
        of_seeds = [replace(settings, seed=seed) for seed in seeds]
        return tuple(self.recipe.fit(rows, fitted, each) for each in of_seeds)


def tuned(
    recipe: Recipe[S],
    train: Batch,
    validation: Batch | None,
    fitted: FittedState,
    num_trials: int = DEFAULT_TRIALS,
) -> Tuned[S]:
    """Choose the settings on the validation rows, and fit on the training rows."""
    settings = recipe.tune(train, validation, fitted, num_trials)
    return Tuned(recipe, settings, recipe.fit(train, fitted, settings))


def squared_error(stars: Floats, rows: Batch, fitted: FittedState) -> float:
    """Mean squared error of the clipped predictions ``stars: [B]``."""
    clipped = np.clip(stars, fitted.rating_min, fitted.rating_max)
    return float(np.mean((clipped - ratings_of(rows)) ** 2))


def users_of(rows: Batch) -> Integers:
    """``[B]`` user index, fit to index arrays with."""
    return rows.users.numpy().astype(np.int64)


def movies_of(rows: Batch) -> Integers:
    """``[B]`` movie index, fit to index arrays with."""
    return rows.movies.numpy().astype(np.int64)


def ratings_of(rows: Batch) -> Floats:
    """``[B]`` stars in double precision."""
    return rows.ratings.numpy().astype(np.float64)
