"""Predictions that any model must beat, fitted and scored on the same rows as the models.

::

    base          what they share: predict, score, be tuned, be fitted again
    bias          global mean; damped user and movie biases
    neighbours    item-based nearest neighbours
    factors       biased matrix factorisation
    boosting      LightGBM, on the features of
      statistics    users, movies and pairs
      sessions      ratings near in time
      tables        out of fold: no row sees its own rating

Settings are chosen on the validation rows; no function here is given test rows before ``score``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from ncf.baselines.base import Baseline, Recipe, Tuned, concatenated, tuned
from ncf.baselines.bias import (
    DAMPED_BIAS,
    DAMPINGS,
    DEFAULT_DAMPING,
    GLOBAL_MEAN,
    Biases,
    damped_bias,
    global_mean,
    tuned_damped_bias,
)
from ncf.baselines.boosting import BOOSTING, installed
from ncf.baselines.factors import FACTORISATION
from ncf.baselines.neighbours import NEAREST_NEIGHBOURS
from ncf.batches import Batch
from ncf.fitted import FittedState

__all__ = [
    "DAMPINGS",
    "DEFAULT_DAMPING",
    "Baseline",
    "Biases",
    "Recipe",
    "Tuned",
    "all_baselines",
    "damped_bias",
    "global_mean",
    "recipes",
    "refitted_baselines",
    "tuned",
    "tuned_baselines",
    "tuned_damped_bias",
]

LARGEST: Final = 2_000_000
"""Training rows above which only the biases are fitted: the others would take hours or more
memory than there is."""

Note = Callable[[str], None]
"""Takes a sentence for the user."""

_warn: Final = logging.getLogger(__name__).warning


def recipes(num_rows: int, note: Note = _warn) -> tuple[Recipe[Any], ...]:
    """The baselines for so many training rows; ``note`` is told what is left out, and why."""
    biases = (GLOBAL_MEAN, DAMPED_BIAS)
    if num_rows > LARGEST:
        note(f"Above {LARGEST:,} training ratings only the bias baselines are fitted.")
        return biases
    without_lightgbm = (*biases, NEAREST_NEIGHBOURS, FACTORISATION)
    if not installed():
        note("LightGBM is not installed, so its baselines are left out: pip install lightgbm")
        return without_lightgbm
    return (*without_lightgbm, *BOOSTING)


def tuned_baselines(
    train: Batch, validation: Batch | None, fitted: FittedState, note: Note = _warn
) -> Iterator[Tuned[Any]]:
    """Every baseline, tuned on the validation rows and fitted on the training rows."""
    for recipe in recipes(len(train), note):
        yield tuned(recipe, train, validation, fitted)


def all_baselines(
    train: Batch, validation: Batch | None, fitted: FittedState, note: Note = _warn
) -> Iterator[Baseline]:
    """The baselines themselves, to be compared with models trained on the training rows."""
    for found in tuned_baselines(train, validation, fitted, note):
        yield found.baseline


def refitted_baselines(
    train: Batch, validation: Batch | None, fitted: FittedState, note: Note = _warn
) -> Iterator[Baseline]:
    """The same settings fitted on training and validation rows together."""
    rows = concatenated(train, validation)
    for found in tuned_baselines(train, validation, fitted, note):
        yield found.refit(rows, fitted)
