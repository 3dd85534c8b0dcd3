"""The trials of a search as an Optuna study, and the importance of its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search.optuna import OptunaSearch

from ray_jobs.config import Dimension
from ray_jobs.search.space import domains
from ray_jobs.search.study_log import STATES, frozen_trial
from ray_jobs.training.telemetry import SEARCH_METRICS, SearchMetric

FEWEST_TRIALS: Final = 10
"""With fewer, importances say more about the random forest than about the settings."""

_PARAMETER: Final = "config."


def study_of(
    trials: Sequence[Mapping[str, Any]],
    space: Mapping[str, Dimension],
    *,
    stopped: TrialState = TrialState.PRUNED,
    metric: SearchMetric = SEARCH_METRICS["rmse"],
) -> Study:
    """A study with these trials.

    Args:
        trials: rows of ``trials.parquet``.
        space: that was searched.
        stopped: state of a trial that the scheduler stopped: pruned, or ``COMPLETE`` with the value
            that it had then, which is what the sampler was told.
        metric: by which the trials were compared.
    """
    states = STATES | {"stopped": stopped}
    distributions = OptunaSearch.convert_search_space(domains(space))

    def frozen(trial: Mapping[str, Any]) -> FrozenTrial:
        state = states[trial["state"]]
        return frozen_trial(
            state,
            None if state == TrialState.FAIL else [trial[metric.key]],
            {name: trial[f"{_PARAMETER}{name}"] for name in distributions},
            distributions,
        )

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it announces the study
    try:
        study = optuna.create_study(direction="minimize" if metric.mode == "min" else "maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials([frozen(trial) for trial in trials])
    return study


def importances(study: Study) -> dict[str, float] | None:
    """The share of each setting in what the settings explain of the results, largest first.

    By fANOVA over the complete trials, with a fixed seed; the shares add up to 1. None if there are
    too few trials with different results.
    """
    values = {t.value for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if len(values) < FEWEST_TRIALS:
        return None
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
