"""Simpler models to compare with, fitted and scored on the same rows as the networks.

::

    base          the interface: tune, fit, predict, score, refit
    bias          global mean; damped user and movie biases
    neighbours    item-based nearest neighbours
    matrix_factorization  biased matrix factorisation
    boosting      LightGBM, on the features of
      statistics    users, movies and pairs
      sessions      ratings near in time
      tables        out-of-fold features, computed without the row's own rating
    search        search for settings

Settings are chosen on the validation rows; no function here receives test rows before ``score``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from ncf.baselines.base import DEFAULT_TRIALS, Baseline, BaselineSpec, FittedBaseline, fit_baseline
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
from ncf.baselines.matrix_factorization import MATRIX_FACTORIZATION
from ncf.baselines.neighbours import NEAREST_NEIGHBOURS
from ncf.config import BaselineName
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor

__all__ = [
    "ALL",
    "DAMPINGS",
    "DEFAULT_DAMPING",
    "DEFAULT_TRIALS",
    "Baseline",
    "BaselineSpec",
    "Biases",
    "FittedBaseline",
    "baseline_specs",
    "damped_bias",
    "fit_baseline",
    "fit_baselines",
    "global_mean",
    "tuned_damped_bias",
]

LARGEST: Final = 2_000_000
"""Training rows above which only the biases are fitted: the others would take hours or exceed
memory."""

_SPECS: Final[dict[BaselineName, BaselineSpec[Any]]] = {
    "global-mean": GLOBAL_MEAN,
    "damped-bias": DAMPED_BIAS,
    "neighbours": NEAREST_NEIGHBOURS,
    "matrix-factorization": MATRIX_FACTORIZATION,
    **BOOSTING,
}

ALL: Final = tuple(_SPECS)
"""The names of all baselines, the simplest first."""

_SMALL: Final[tuple[BaselineName, ...]] = ("global-mean", "damped-bias")
"""Baselines that take any number of rows."""

Note = Callable[[str], None]
"""Receives a sentence for the user."""

_warn: Final = logging.getLogger(__name__).warning


def baseline_specs(
    num_rows: int, names: Collection[BaselineName] = ALL, note: Note = _warn
) -> tuple[BaselineSpec[Any], ...]:
    """The global mean and the named baselines for ``num_rows`` training rows, ordered as ``ALL``.

    ``note`` is called with each baseline that is left out and the reason.
    """
    wanted = [name for name in ALL if name in names or name == "global-mean"]
    if num_rows > LARGEST and not set(wanted) <= set(_SMALL):
        note(f"Above {LARGEST:,} training ratings only the bias baselines are fitted.")
        wanted = [name for name in wanted if name in _SMALL]
    if not installed() and set(wanted) & set(BOOSTING):
        note("LightGBM is not installed, so its baselines are left out: pip install lightgbm")
        wanted = [name for name in wanted if name not in BOOSTING]
    return tuple(_SPECS[name] for name in wanted)


def fit_baselines(
    train: Batch,
    validation: Batch | None,
    preprocessor: Preprocessor,
    names: Collection[BaselineName] = ALL,
    note: Note = _warn,
    num_trials: int = DEFAULT_TRIALS,
) -> Iterator[FittedBaseline[Any]]:
    """The named baselines, tuned on the validation rows and fitted on the training rows."""
    for spec in baseline_specs(len(train), names, note):
        yield fit_baseline(spec, train, validation, preprocessor, num_trials)
