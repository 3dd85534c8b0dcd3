"""The interface of all baselines: tune on validation rows, fit, predict, score, refit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

import numpy as np
import torch

from ncf.data.batches import Batch
from ncf.data.preprocessor import Floats, Integers, Preprocessor
from ncf.evaluation.metrics import ErrorSums, Scores

S = TypeVar("S")

DEFAULT_TRIALS: Final = 24
"""Settings tried for a baseline whose trials take seconds."""


@dataclass(frozen=True)
class Baseline(ABC):
    """A named prediction in stars for every row."""

    name: str
    """Name in tables."""
    detail: str
    """How it was fitted, with the chosen settings."""

    @abstractmethod
    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""

    def score(self, rows: Batch, preprocessor: Preprocessor) -> Scores:
        """Errors in stars and on the decayed scale, predictions clipped like the models'."""
        stars = self.predict(rows).clamp(preprocessor.rating_min, preprocessor.rating_max)
        return Scores(
            ErrorSums.of(stars, rows.ratings),
            ErrorSums.of(stars * rows.weights, rows.ratings * rows.weights),
        )


@dataclass(frozen=True)
class BaselineSpec(Generic[S]):
    """One kind of baseline: how its settings are chosen, and how it is fitted with them."""

    name: str
    """Name of the baseline."""
    tune: Callable[[Batch, Batch | None, Preprocessor, int], S]
    """``tune(train, validation, preprocessor, num_trials) -> settings``; the defaults without
    validation rows. If trials are cheap, a whole grid is tried instead of ``num_trials``."""
    fit: Callable[[Batch, Preprocessor, S], Baseline]
    """``fit(rows, preprocessor, settings) -> baseline``."""
    grid: int | None = None
    """Settings that are tried if that does not depend on ``num_trials``."""

    def tried(self, num_trials: int) -> int:
        """Settings that ``tune`` tries."""
        return num_trials if self.grid is None else self.grid


@dataclass(frozen=True)
class FittedBaseline(Generic[S]):
    """A baseline with settings chosen on the validation rows."""

    spec: BaselineSpec[S]
    """Used to fit it again."""
    settings: S
    """The chosen settings."""
    baseline: Baseline
    """Fitted on the training rows."""

    @property
    def is_seeded(self) -> bool:
        """Whether the baseline depends on a random seed."""
        return hasattr(self.settings, "seed")

    def refit(
        self, rows: Batch, preprocessor: Preprocessor, seeds: Sequence[int] = (0,)
    ) -> tuple[Baseline, ...]:
        """Fit the same settings on ``rows``, such as training and validation rows together.

        Once for each seed; only once if the baseline does not depend on a seed.
        """
        settings: Any = self.settings
        if not self.is_seeded:
            return (self.spec.fit(rows, preprocessor, settings),)
        of_seeds = [replace(settings, seed=seed) for seed in seeds]
        return tuple(self.spec.fit(rows, preprocessor, each) for each in of_seeds)


def fit_baseline(
    spec: BaselineSpec[S],
    train: Batch,
    validation: Batch | None,
    preprocessor: Preprocessor,
    num_trials: int = DEFAULT_TRIALS,
) -> FittedBaseline[S]:
    """Choose the settings on the validation rows, and fit on the training rows."""
    settings = spec.tune(train, validation, preprocessor, num_trials)
    return FittedBaseline(spec, settings, spec.fit(train, preprocessor, settings))


def squared_error(stars: Floats, rows: Batch, preprocessor: Preprocessor) -> float:
    """Mean squared error of the clipped predictions ``stars: [B]``."""
    return mean_squared_error(stars, ratings_of(rows), preprocessor)


def mean_squared_error(stars: Floats, ratings: Floats, preprocessor: Preprocessor) -> float:
    """The same with ``ratings: [B]``."""
    clipped = np.clip(stars, preprocessor.rating_min, preprocessor.rating_max)
    return float(np.mean((clipped - ratings) ** 2))


def users_of(rows: Batch) -> Integers:
    """``[B]`` user index, for indexing arrays."""
    return rows.users.numpy().astype(np.int64)


def movies_of(rows: Batch) -> Integers:
    """``[B]`` movie index, for indexing arrays."""
    return rows.movies.numpy().astype(np.int64)


def ratings_of(rows: Batch) -> Floats:
    """``[B]`` stars in double precision."""
    return rows.ratings.numpy().astype(np.float64)
