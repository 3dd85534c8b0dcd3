"""A search for a baseline's settings, with the sampler that looks for the models' settings too."""

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
    """Of ``default`` and further ones, ``num_trials`` together, those with the least ``error``.

    ``space`` names the fields of ``default`` that vary. The same call finds the same settings.
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
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it announces the study
    try:
        return optuna.create_study(sampler=TPESampler(seed=0))
    finally:
        optuna.logging.set_verbosity(verbosity)
