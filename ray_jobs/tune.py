"""Search by Ray Tune and Optuna over losses, layer sizes and more.

``python -m ray_jobs.tune --help``.

Trials are trained by worker groups that stay (``tune.executor``), and stopped early by ASHA if they
fall behind. They are compared by validation RMSE in stars, whatever loss they train with; no test
row is read.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import tomli_w
from optuna.samplers import TPESampler
from ray import tune
from ray.tune import Callback, CheckpointConfig, ResultGrid, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from ingest.storage import Storage
from ncf.config import ExperimentConfig, LossName
from ncf.prepared import Prepared
from ray_jobs import preflight
from ray_jobs.cluster import Resources, ensure_ray
from ray_jobs.config import Dimension, JobConfig, with_parameters
from ray_jobs.console import say
from ray_jobs.errors import TrainingError
from ray_jobs.executors import Executor, decoded, executor
from ray_jobs.preprocess import ingest, preprocess
from ray_jobs.runtime import main
from ray_jobs.workspace import STAGE_VERSION, Workspace, fingerprint

METRIC: Final = "best_validation_rmse"
"""Lowest validation RMSE so far, in stars."""


@dataclass(frozen=True)
class Chosen:
    """The configuration that the later stages use."""

    experiment: ExperimentConfig
    parameters: dict[str, Any]
    """What the search chose; empty if there was none."""
    validation_rmse: float | None
    """Of the chosen trial, in stars."""
    num_trials: int
    """Trials that the choice was made from."""


def search(workspace: Workspace, prepared: Prepared, loss: LossName | None = None) -> Chosen:
    """The best configuration by validation RMSE, from this search or from the same one before.

    Args:
        workspace: where the search's results go.
        prepared: the data.
        loss: make the search of ``compare.trials_per_loss`` for this loss alone, with results in a
            folder of its own.

    Raises:
        TrainingError: if every trial failed, with the first reason.
        ResourceError: if not even one trial fits the cluster.
    """
    config = workspace.config.of_loss(loss) if loss else workspace.config
    if not config.tune.num_trials:
        return Chosen(config.experiment, {}, None, 0)
    name = f"tune-{loss}" if loss else "tune"
    folder = workspace.run / "searches" / loss if loss else workspace.run
    best, trials = folder / "best_config.json", folder / "trials.parquet"
    key = fingerprint(
        STAGE_VERSION,
        prepared.manifest.fingerprint,
        config.experiment.model_dump(mode="json"),
        config.tune.model_dump(mode="json", exclude={"executor"}),  # trials come out the same
        config.scaling.num_workers,
    )

    def work() -> None:
        grid = _run_trials(config, prepared, workspace.run / "ray" / name)
        _write_results(grid, config, folder)

    workspace.stage(name, key, [best, trials], work)
    values = best.read_json()
    return Chosen(
        experiment=with_parameters(config.experiment, values["parameters"]),
        parameters=values["parameters"],
        validation_rmse=values["validation_rmse"],
        num_trials=values["num_trials"],
    )


def _run_trials(config: JobConfig, prepared: Prepared, where: Storage) -> ResultGrid:
    ensure_ray(config)
    resources = Resources.of(config)
    concurrent = min(
        config.tune.max_concurrent_trials or resources.concurrent,
        resources.concurrent,
        config.tune.num_trials,
    )
    say(f"   {config.tune.num_trials} trials, {concurrent} at a time, {_device(resources)}")
    where.delete()
    with executor(config, prepared, resources, concurrent, where) as chosen:
        return _tuner(config, chosen, concurrent, where).fit()


def _tuner(config: JobConfig, chosen: Executor, concurrent: int, where: Storage) -> Tuner:
    return Tuner(
        chosen.trainable,
        param_space={key: _domain(d) for key, d in config.tune.space.items()},
        tune_config=TuneConfig(
            metric=METRIC,
            mode="min",
            num_samples=config.tune.num_trials,
            max_concurrent_trials=concurrent,
            reuse_actors=chosen.reuse_actors,
            search_alg=OptunaSearch(sampler=TPESampler(seed=config.tune.seed)),
            scheduler=ASHAScheduler(
                time_attr="epoch",
                grace_period=min(config.tune.grace_epochs, config.train.epochs),
                # Beyond the last epoch: a trial that gets there ends by itself, and cleanly.
                max_t=config.train.epochs + 1,
                reduction_factor=config.tune.reduction_factor,
            ),
        ),
        run_config=RunConfig(
            name=where.name,
            storage_path=where.parent.path,
            storage_filesystem=where.filesystem,
            verbose=0,
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # trials keep none
            callbacks=[*chosen.callbacks, _TrialLines(config.tune.num_trials)],
        ),
    )


def _device(resources: Resources) -> str:
    kind = "GPU" if resources.use_gpu else "CPU"
    return f"{resources.num_workers} {kind} worker(s) each"


def _domain(dimension: Dimension) -> Any:
    """A Ray Tune domain; lists travel as JSON, because Optuna's categories must be scalars."""
    if dimension.choices:
        return tune.choice([c if _is_scalar(c) else json.dumps(c) for c in dimension.choices])
    low, high = dimension.low, dimension.high
    if dimension.integer:
        ends = int(low or 0), int(high or 0) + 1
        return tune.lograndint(*ends) if dimension.log else tune.randint(*ends)
    return tune.loguniform(low, high) if dimension.log else tune.uniform(low, high)


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, (tuple, list))


class _TrialLines(Callback):
    """A line for each trial that ends."""

    def __init__(self, num_trials: int) -> None:
        self._num_trials = num_trials
        self._ended = 0
        self._best = float("inf")

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver."""
        result = trial.last_result
        self._best = min(self._best, result.get(METRIC, float("inf")))
        self._say(
            trial,
            f"RMSE {result.get(METRIC, float('nan')):.4f} after {result.get('epoch', 0)} epochs"
            f" (best so far {self._best:.4f})",
        )

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver."""
        self._say(trial, "failed")

    def _say(self, trial: Trial, outcome: str) -> None:
        self._ended += 1
        values = ", ".join(
            f"{key.split('.')[-1]}={value:.3g}"
            if isinstance(value, float)
            else f"{key.split('.')[-1]}={value}"
            for key, value in trial.config.items()
        )
        say(f"   trial {self._ended}/{self._num_trials}: {outcome}  {values}")


def _write_results(grid: ResultGrid, config: JobConfig, folder: Storage) -> None:
    """``trials.parquet``, ``best_config.toml`` and ``best_config.json``, this one last.

    Raises:
        TrainingError: if every trial failed.
    """
    trials = _trials(grid)
    finished = [t for t in trials if t["state"] == "finished" and t[METRIC] is not None]
    if not finished:
        reason = (trials[0]["error"] if trials else None) or "it reported no result"
        raise TrainingError(f"all {len(trials)} trials failed, the first with: {reason}")
    best = min(finished, key=lambda trial: float(trial[METRIC]))
    parameters = decoded({key: best[f"config.{key}"] for key in config.tune.space})
    experiment = with_parameters(config.experiment, parameters)
    (folder / "trials.parquet").write_table(pa.Table.from_pylist(trials))
    (folder / "best_config.toml").write_text(
        tomli_w.dumps(experiment.model_dump(mode="json", exclude_none=True))
    )
    (folder / "best_config.json").write_json(
        {
            "parameters": parameters,
            "validation_rmse": best[METRIC],
            "best_epoch": best["best_epoch"],
            "num_trials": len(trials),
            "num_failed": len(trials) - len(finished),
            "seed": config.tune.seed,
        }
    )
    say(f"   best of {len(finished)}: validation RMSE {best[METRIC]:.4f} with {parameters}")


def _trials(grid: ResultGrid) -> list[dict[str, Any]]:
    """One record a trial, in the order they were made."""
    records = []
    for number, result in enumerate(grid, start=1):
        metrics = result.metrics or {}
        error = metrics.get(METRIC)
        records.append(
            {
                "trial": number,
                "trial_id": metrics.get("trial_id"),
                "state": "failed" if result.error else "finished",
                "error": str(result.error).strip().splitlines()[-1] if result.error else None,
                METRIC: error if error is not None and math.isfinite(error) else None,
                "best_epoch": metrics.get("best_epoch"),
                "epochs": metrics.get("epoch"),
                "seconds": metrics.get("time_total_s"),
            }
            | {f"config.{key}": value for key, value in (result.config or {}).items()}
        )
    return records


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """The stages up to this one."""
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        search(workspace, preprocess(workspace, ingest(workspace)))


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
