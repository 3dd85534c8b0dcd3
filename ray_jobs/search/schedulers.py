"""The schedulers of ``tune.scheduler``: which trials are stopped before their last epoch.

A scheduler is one of Ray Tune's that answers each epoch with CONTINUE or STOP. It must not PAUSE:
trials cannot be paused here. Another one is an entry in ``SCHEDULERS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from foundation.errors import ConfigError, shortened
from ray_jobs.training.telemetry import SearchMetric

EPOCH: Final = "epoch"
"""Name of the reported number of an epoch, counted from 1."""

_MOST_BRACKETS: Final = 3


@dataclass(frozen=True)
class SchedulerSettings:
    """What a scheduler may need to know of a search."""

    metric: SearchMetric
    """Reported with each epoch under ``metric.key``."""
    epochs: int
    """That a trial has at most."""
    grace_epochs: int
    """That a trial has at least, as in ``tune.grace_epochs``; may be above ``epochs``."""
    reduction_factor: float
    """As in ``tune.reduction_factor``."""
    seed: int
    """As in ``tune.seed``."""
    number_of: Callable[[str], int]
    """The number of a trial, from 1, by Ray Tune's name of it."""

    @property
    def grace_period(self) -> int:
        """Epochs after which a trial may be stopped."""
        return min(self.grace_epochs, self.epochs)


def scheduler(name: str, settings: SchedulerSettings) -> TrialScheduler:
    """A new scheduler.

    Raises:
        ConfigError: if there is none of this name.
    """
    check_scheduler(name)
    return SCHEDULERS[name](settings)


def check_scheduler(name: str) -> None:
    """Refuse a name that no scheduler has.

    Raises:
        ConfigError: which names the schedulers.
    """
    if name not in SCHEDULERS:
        raise ConfigError(
            f"tune.scheduler = {shortened(repr(name))} is none of "
            f"{', '.join(map(repr, SCHEDULERS))}"
        )


def _asha(settings: SchedulerSettings) -> TrialScheduler:
    """Asynchronous successive halving: the best one in ``reduction_factor`` goes on at each rung,
    the first of which is at ``grace_period``."""
    return _halving(settings, settings.grace_period)


def _halving(settings: SchedulerSettings, grace_period: float) -> ASHAScheduler:
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=settings.metric.key,
        mode=settings.metric.mode,
        grace_period=grace_period,
        # Beyond the last epoch: a trial that gets there ends by itself, and cleanly.
        max_t=settings.epochs + 1,
        reduction_factor=settings.reduction_factor,
    )


def _median(settings: SchedulerSettings) -> TrialScheduler:
    """Stops a trial whose best value is worse than the median of the other trials' means up to the
    same epoch, if at least three others have got there."""
    return MedianStoppingRule(
        time_attr=EPOCH,
        metric=settings.metric.key,
        mode=settings.metric.mode,
        grace_period=settings.grace_period,
        min_time_slice=math.inf,  # else it pauses trials while there are too few others
    )


class AsyncHyperBand(FIFOScheduler):
    """Up to three successive halvings side by side, each with a later first rung than the last.

    Ray Tune's ``HyperBandScheduler`` waits for a whole bracket and pauses the trials that are
    ahead, which trials here do not support. Its asynchronous form, ``AsyncHyperBandScheduler`` with
    several brackets, draws the bracket of a trial from numpy's global generator, so that no search
    is repeatable. This one draws with the same probabilities, but from the search's seed and the
    trial's number: a trial has its bracket also after a search was interrupted.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        super().__init__()
        self._metric = settings.metric.key
        self._seed = settings.seed
        self._number_of = settings.number_of
        grace, factor = settings.grace_period, settings.reduction_factor
        starts = [grace * factor**bracket for bracket in range(_MOST_BRACKETS)]
        self._brackets = [_halving(settings, start) for start in starts if start <= settings.epochs]
        # A bracket has one rung less than the one before it, and Ray draws by exp(rungs).
        weights = np.exp(-np.arange(len(self._brackets)))
        self._shares = weights / weights.sum()

    def bracket(self, trial: Trial) -> TrialScheduler:
        """The halving that a trial takes part in."""
        draw = np.random.default_rng((self._seed, self._number_of(trial.trial_id)))
        return self._brackets[draw.choice(len(self._brackets), p=self._shares)]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Called by Ray Tune before a trial starts."""
        self.bracket(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Called by Ray Tune after each epoch."""
        return self.bracket(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Called by Ray Tune when a trial has ended by itself."""
        self.bracket(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Called by Ray Tune when a trial ends that does not run."""
        self.bracket(trial).on_trial_remove(tune_controller, trial)


def _none(settings: SchedulerSettings) -> TrialScheduler:
    """Stops no trial."""
    return FIFOScheduler()


SCHEDULERS: Final[Mapping[str, Callable[[SchedulerSettings], TrialScheduler]]] = {
    "asha": _asha,
    "median": _median,
    "hyperband": AsyncHyperBand,
    "none": _none,
}
"""Makes each scheduler, by the values of ``tune.scheduler``."""
