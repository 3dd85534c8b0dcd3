"""Simpler models to compare with, fitted and scored on the same rows as the networks.

::

    base                  the interface: tune, fit, predict, score, refit
    bias                  global mean; damped user and movie biases
    neighbours            item-based nearest neighbours
    matrix_factorization  biased matrix factorisation
    bayesian_factorization  the same, as the mean over draws of a Gibbs sampler
    svdpp                 SVD++ and timeSVD++
    boosting              LightGBM, on the features of
      statistics          users, movies and pairs
      sessions            ratings near in time
      tables              out-of-fold features, computed without the row's own rating
    search                search for settings
    choice                baselines of choice models

A baseline is a ``BaselineSpec`` and a line in ``ncf.registry.BASELINES``. Settings are chosen on
the validation rows; no function here receives test rows before ``score``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

from ncf.baselines.base import DEFAULT_TRIALS, Baseline, BaselineSpec, FittedBaseline, fit_baseline
from ncf.baselines.bias import (
    DAMPINGS,
    DEFAULT_DAMPING,
    Biases,
    damped_bias,
    global_mean,
    tuned_damped_bias,
)
from ncf.config import BaselineName
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor
from ncf.registry import BASELINES, BaselineEntry, implementation

__all__ = [
    "ALL",
    "DAMPINGS",
    "DEFAULT_DAMPING",
    "DEFAULT_TRIALS",
    "Baseline",
    "BaselineSpec",
    "Biases",
    "FittedBaseline",
    "Note",
    "available",
    "baseline_specs",
    "damped_bias",
    "fit_baseline",
    "fit_baselines",
    "global_mean",
    "tuned_damped_bias",
]

LARGEST: Final = 2_000_000
"""Training rows above which only baselines that fit any size are fitted: the others would take
hours or exceed memory."""

ALL: Final = tuple(name for name, entry in BASELINES.items() if entry.by_default)
"""The names of the baselines that are compared with by default, the simplest first."""

Note = Callable[[str], None]
"""Receives a sentence for the user."""

logger: Final = logging.getLogger(__name__)


def baseline_specs(
    num_rows: int, names: Collection[BaselineName] = ALL, note: Note = logger.warning
) -> tuple[BaselineSpec[Any], ...]:
    """The global mean and the named baselines for ``num_rows`` training rows, the simplest first.

    ``note`` is called with the baselines that are omitted and the reason.
    """
    return available(BASELINES, num_rows, {"global-mean", *names}, note)


def available(
    entries: Mapping[str, BaselineEntry], num_rows: int, names: Collection[str], note: Note
) -> tuple[Any, ...]:
    """The implementations of the named ``entries``, in their order, that fit ``num_rows`` training
    rows and whose package is installed.

    ``note`` is called with those that are omitted and the reason.
    """
    wanted = {name: entry for name, entry in entries.items() if name in names}
    if num_rows > LARGEST:
        reason = f"they take too long above {LARGEST:,} training ratings"
        wanted = _only(wanted, lambda entry: entry.fits_any_size, reason, note)
    for package in sorted({entry.package for entry in wanted.values() if entry.package}):
        if not is_installed(package):
            reason = f"{package} is not installed: pip install {package}"
            wanted = _only(wanted, partial(_does_without, package), reason, note)
    return tuple(implementation(entry.implementation) for entry in wanted.values())


def _only(
    entries: Mapping[str, BaselineEntry],
    is_kept: Callable[[BaselineEntry], bool],
    reason: str,
    note: Note,
) -> dict[str, BaselineEntry]:
    """Those that ``is_kept``; the others are noted with the reason."""
    kept = {name: entry for name, entry in entries.items() if is_kept(entry)}
    omitted = [name for name in entries if name not in kept]
    if omitted:
        note(f"These baselines are left out: {', '.join(omitted)}; {reason}.")
    return kept


def _does_without(package: str, entry: BaselineEntry) -> bool:
    return entry.package != package


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None


def fit_baselines(
    train: Batch,
    validation: Batch | None,
    preprocessor: Preprocessor,
    names: Collection[BaselineName] = ALL,
    note: Note = logger.warning,
    num_trials: int = DEFAULT_TRIALS,
) -> Iterator[FittedBaseline[Any]]:
    """The named baselines, tuned on the validation rows and fitted on the training rows."""
    for spec in baseline_specs(len(train), names, note):
        yield fit_baseline(spec, train, validation, preprocessor, num_trials)
