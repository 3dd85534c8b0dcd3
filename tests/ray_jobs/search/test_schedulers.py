"""The registries of schedulers and samplers, without Ray."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, get_args

import pytest
from optuna.samplers import CmaEsSampler, GPSampler, RandomSampler, TPESampler
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from foundation.errors import ConfigError
from ray_jobs.cli import load_config
from ray_jobs.config import TuneConfig
from ray_jobs.search import samplers, schedulers
from ray_jobs.search.schedulers import AsyncHyperBand, SchedulerSettings
from ray_jobs.training.telemetry import SEARCH_METRICS

SETTINGS = SchedulerSettings(
    metric=SEARCH_METRICS["rmse"],
    epochs=9,
    grace_epochs=1,
    reduction_factor=3.0,
    seed=0,
    number_of=int,
)


@dataclass(frozen=True, eq=False)
class Trial:
    """What a scheduler looks at of Ray Tune's trials; named by its number."""

    trial_id: str


def decisions(scheduler: TrialScheduler, values: list[float], metric: str = "rmse") -> list[str]:
    """On the first epochs of trials one after the other, which reported these values."""
    found = []
    for number, value in enumerate(values, 1):
        trial: Any = Trial(str(number))
        scheduler.on_trial_add(None, trial)
        result = {"epoch": 1, f"best_validation_{metric}": value}
        found.append(scheduler.on_trial_result(None, trial, result))
    return found


def test_the_registries_hold_ray_tunes_schedulers_and_optunas_samplers() -> None:
    kinds = {name: type(schedulers.scheduler(name, SETTINGS)) for name in schedulers.SCHEDULERS}
    assert kinds == {
        "asha": ASHAScheduler,
        "median": MedianStoppingRule,
        "hyperband": AsyncHyperBand,
        "none": FIFOScheduler,
    }
    made = {name: type(samplers.sampler(name, 0)) for name in samplers.SAMPLERS}
    assert made == {
        "tpe": TPESampler,
        "random": RandomSampler,
        "cmaes": CmaEsSampler,
        "gp": GPSampler,
    }
    defaults = TuneConfig()
    assert (defaults.scheduler, defaults.sampler, defaults.metric) == ("asha", "tpe", "rmse")
    assert get_args(TuneConfig.model_fields["metric"].annotation) == tuple(SEARCH_METRICS)


@pytest.mark.parametrize(
    ("setting", "valid"),
    [
        ("scheduler", "'asha', 'median', 'hyperband', 'none'"),
        ("sampler", "'tpe', 'random', 'cmaes', 'gp'"),
    ],
)
def test_unknown_names_are_refused_with_the_valid_ones(setting: str, valid: str) -> None:
    with pytest.raises(ConfigError, match=f"tune.{setting} = 'best' is none of {valid}"):
        load_config([], [f"tune.{setting}=best"])


def test_a_scheduler_goes_by_the_direction_of_the_metric() -> None:
    """The best third goes on: the bound lies two thirds of the way from the worse to the better."""
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    rmse = schedulers.scheduler("asha", SETTINGS)
    assert decisions(rmse, [0.9, 0.6, 0.69, 0.71]) == [go, go, go, stop]

    higher_is_better = replace(SETTINGS, metric=SEARCH_METRICS["r2"])
    r2 = schedulers.scheduler("asha", higher_is_better)
    assert decisions(r2, [0.1, 0.4, 0.31, 0.29], "r2") == [go, go, go, stop]


def test_median_never_pauses_a_trial() -> None:
    """Of the first three there are too few others to compare with."""
    median = schedulers.scheduler("median", SETTINGS)
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert decisions(median, [0.7, 0.9, 0.8, 0.81, 0.79]) == [go, go, go, stop, go]


def test_brackets_of_hyperband_are_drawn_by_exp_of_their_rungs_and_the_same_each_time() -> None:
    """Three brackets with first rungs at the epochs 1, 3 and 9."""
    first, again = (AsyncHyperBand(SETTINGS) for _ in range(2))
    trials: list[Any] = [Trial(str(number)) for number in range(1, 3001)]
    indices = [first._brackets.index(first.bracket(trial)) for trial in trials]

    assert [again._brackets.index(again.bracket(trial)) for trial in trials] == indices
    counts = Counter(indices)
    # 1, 1/e and 1/e^2 over their sum.
    assert counts[0] / 3000 == pytest.approx(0.665, abs=0.03)
    assert counts[1] / 3000 == pytest.approx(0.245, abs=0.03)
    assert counts[2] / 3000 == pytest.approx(0.090, abs=0.03)

    stopped = decisions(first, [float(number) for number in range(1, 301)])
    by_bracket = {
        bracket: {d for d, b in zip(stopped, indices, strict=False) if b == bracket}
        for bracket in range(3)
    }
    # After one epoch only trials of the first bracket can be stopped, here all but its first.
    assert by_bracket[0] == {TrialScheduler.CONTINUE, TrialScheduler.STOP}
    assert by_bracket[1] == by_bracket[2] == {TrialScheduler.CONTINUE}
