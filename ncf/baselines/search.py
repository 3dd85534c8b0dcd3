"""Search for a baseline's settings, with the sampler of the search for the models' settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


def best_settings(
    default: S,
    space: Mapping[str, BaseDistribution],
    error: Callable[[S], float],
    num_trials: int,
) -> S:
    """Try ``num_trials`` settings, ``default`` first, and return those with the lowest ``error``.

    ``space`` has the fields of ``default`` that vary. Equal calls return equal settings.
    """
    study = _study()
    values = asdict(default)
    study.enqueue_trial({name: values[name] for name in space})
    for _ in range(num_trials):
        trial = study.ask(dict(space))
        study.tell(trial, error(replace(default, **trial.params)))
    return replace(default, **study.best_params)


def _study() -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(
        optuna.logging.WARNING
    )  # otherwise it logs the creation of the study
    try:
        return optuna.create_study(sampler=TPESampler(seed=0))
    finally:
        optuna.logging.set_verbosity(verbosity)
