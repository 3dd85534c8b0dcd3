"""Make the comparison on each of several splits, and one over the test rows of all.

Every fold is a run of its own, ``runs/<name>.<fold>``, with a search of its own on validation rows
that are drawn from its training rows, so that no choice depends on the test rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from foundation.errors import ConfigError
from foundation.lock import RUN_LOCK_FILE, locked
from ray_jobs.config import JobConfig
from ray_jobs.results.across_folds import (
    COLUMNS,
    AcrossFolds,
    Fold,
    in_all,
    missing,
    pool,
    scale_of,
)
from ray_jobs.results.comparison import METRICS, Comparison
from ray_jobs.results.run import Workspace
from ray_jobs.stages.compared_predictions import FOLD
from ray_jobs.stages.comparison import show_comparison
from ray_jobs.stages.graph import Stages, workers_of
from ray_jobs.training.run_tasks import run_tasks
from ray_jobs.training.run_together import run_together
from ray_jobs.training.workers import Workers


@dataclass(frozen=True)
class FoldErrors:
    """One model's test errors on every fold, each the mean over its seeds."""

    model: str
    rmse: tuple[float, ...]
    mae: tuple[float, ...]
    r2: tuple[float, ...]

    def of(self, metric: str) -> tuple[float, ...]:
        """The errors of one metric, fold by fold."""
        values: tuple[float, ...] = getattr(self, metric)
        return values


def of_folds(comparisons: dict[str, Comparison]) -> tuple[FoldErrors, ...]:
    """The errors of every model that all folds have, in the first one's order."""
    folds = [{entry.name: entry for entry in c.entries} for c in comparisons.values()]
    compared = list(comparisons.values())
    scale = scale_of(compared)
    return tuple(
        FoldErrors(
            name,
            *(tuple(fold[name].figure(metric, scale)[0] for fold in folds) for metric in METRICS),
        )
        for name in (entry.name for entry in in_all(compared))
    )


def folds_of(config: JobConfig) -> tuple[str, ...]:
    """The names of the folds: those of ``cross_validate.folds``, or one for each split seed."""
    seeds = config.cross_validate.split_seeds
    return tuple(config.cross_validate.folds) or tuple(f"seed-{seed}" for seed in seeds)


def fold_config(config: JobConfig, fold: str) -> JobConfig:
    """The configuration of one fold's run."""
    if config.cross_validate.split_seeds:
        seed = int(fold.removeprefix("seed-"))
        split = config.split.model_copy(update={"seed": seed}).model_dump()
    else:
        split = _of_files(config, fold)
    values = config.model_dump() | {"name": f"{config.name}.{fold}", "split": split}
    values["compare"]["predictions"] = _of_fold(config.compare.predictions, fold)
    return JobConfig.model_validate(values)


def _of_fold(files: Mapping[str, str], fold: str) -> dict[str, str]:
    """The files with predictions for the test rows of a fold.

    Raises:
        ConfigError: if a file is the same for all folds.
    """
    for name, file in files.items():
        if FOLD not in file:
            raise ConfigError(
                f"compare.predictions.{name} = {file!r} names one file for all splits; expected "
                f"one for each: {FOLD} stands for the name of a split, such as {fold}"
            )
    return {name: file.replace(FOLD, fold) for name, file in files.items()}


def _of_files(config: JobConfig, fold: str) -> dict[str, Any]:
    return {
        "kind": "files",
        "files": config.cross_validate.folds[fold],
        "validation": config.split.validation,
        "seed": config.split.seed,
    }


def cross_validate(workspace: Workspace) -> Summary:
    """Compare the models on every fold; writes ``folds.json``.

    The data and the searches of one fold are done after those of another; then the models and
    baselines of all folds are trained side by side.
    """
    config = workspace.config
    runs = {fold: Workspace(fold_config(config, fold), workspace.redo) for fold in folds_of(config)}
    with ExitStack() as stack:
        for run in runs.values():
            stack.enter_context(locked(run.run, RUN_LOCK_FILE, waits=True))
        workers = stack.enter_context(workers_of(workspace, len(runs)))
        stages = {fold: _planned(run, workers) for fold, run in runs.items()}
        comparisons = run_together(
            {fold: each.planned_comparison.result for fold, each in stages.items()},
            partial(run_tasks, workers=workers, config=config),
        )
    folds = {
        fold: Fold(
            comparisons[fold],
            each.scored_data.table("test", list(COLUMNS)),
            each.workspace.paths.predictions,
        )
        for fold, each in stages.items()
    }
    for fold, comparison in comparisons.items():
        show_comparison(comparison, f"Fold {fold}. ")
    summary = Summary.of(folds, config.compare.resamples)
    workspace.paths.folds.write_json(summary.to_json())
    return summary


def _planned(workspace: Workspace, workers: Workers) -> Stages:
    """The stages of a fold, up to its comparison."""
    workspace.open()
    stages = Stages(workspace, workers)
    _ = stages.planned_comparison
    return stages


@dataclass(frozen=True)
class Summary:
    """The results over all folds."""

    folds: dict[str, Comparison]
    errors: tuple[FoldErrors, ...]
    """Of the models that all folds have."""
    missing: dict[str, tuple[str, ...]]
    """Models that only some folds have, each with the folds that lack it."""
    pooled: AcrossFolds

    @classmethod
    def of(cls, folds: dict[str, Fold], num_resamples: int) -> Summary:
        """Look at what was compared on each fold."""
        comparisons = {name: fold.comparison for name, fold in folds.items()}
        return cls(
            comparisons,
            of_folds(comparisons),
            missing(comparisons),
            pool(list(folds.values()), num_resamples),
        )

    def to_json(self) -> dict[str, Any]:
        """The content of ``folds.json``."""
        return {
            "folds": tuple(self.folds),
            "models": [asdict(errors) for errors in self.errors],
            "missing": self.missing,
            "pooled": asdict(self.pooled),
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is left out of tables and comparison, a sentence each."""
        return tuple(
            f"{model} is left out: it is missing in {', '.join(folds)}"
            for model, folds in self.missing.items()
        )
