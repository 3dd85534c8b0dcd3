"""Baselines of choice models: simpler rankings of the movies that a user has not rated.

::

    base        the interface: settings, search space, fit; the search for settings
    popularity  the most popular movies, of all time and lately
    item_knn    item-based nearest neighbours
    bpr         matrix factorisation for Bayesian personalised ranking
    ials        implicit alternating least squares
    ease        EASE without content and context, unary and with rating values

A baseline is a ``ChoiceBaselineSpec`` and a line in ``ncf.registry.CHOICE_BASELINES``. All of them
are ``ChoiceModel``: they score users whom they were not fitted to from the known ratings. Settings
are chosen by an objective on the validation rows; no function here receives test rows.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final

from ncf.baselines import Note, available
from ncf.baselines.choice.base import (
    ChoiceBaselineSpec,
    Objective,
    described,
    tune_choice_baseline,
)
from ncf.registry import CHOICE_BASELINES

__all__ = [
    "ALL",
    "ChoiceBaselineSpec",
    "Objective",
    "choice_baseline_specs",
    "described",
    "tune_choice_baseline",
]

ALL: Final = tuple(CHOICE_BASELINES)
"""The names of all baselines of choice models, the simplest first."""

logger: Final = logging.getLogger(__name__)


def choice_baseline_specs(
    num_rows: int, names: Collection[str] = ALL, note: Note = logger.warning
) -> tuple[ChoiceBaselineSpec[Any], ...]:
    """The named baselines for ``num_rows`` training rows, ordered as ``ALL``.

    ``note`` is called with the baselines that are omitted and the reason.
    """
    return available(CHOICE_BASELINES, num_rows, names, note)
