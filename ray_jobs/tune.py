"""Search by Ray Tune and Optuna over losses, layer sizes and more.

``python -m ray_jobs.tune --help``.

Trials are trained by worker groups that stay (``tune.executor``), and stopped early by ASHA if they
fall behind. They are compared by validation RMSE in stars, whatever loss they train with; no test
row is read. A search that was killed goes on from its records, and so does one that shall have more
trials than before: see ``ray_jobs.search.trials`` and ``ray_jobs.search.resume``.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import tomli_w
from ray.tune import CheckpointConfig, RunConfig, TuneConfig, Tuner

from foundation.console import say
from foundation.storage import Storage
from ncf.config import ExperimentConfig, LossName
from ncf.data.dataset import PreparedDataset
from ray_jobs.cli import main
from ray_jobs.cluster import preflight
from ray_jobs.cluster.resources import Resources, trial_groups
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import JobConfig, settings_of, with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.preprocess import ingest, preprocess
from ray_jobs.results.paths import SearchPaths
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import STAGE_VERSION, fingerprint
from ray_jobs.results.trackers import mlflow_callbacks
from ray_jobs.search.progress import TrialProgress, trial_table
from ray_jobs.search.resume import Recorder, ResumableSampler
from ray_jobs.search.schedulers import ResumableASHA
from ray_jobs.search.space import domains
from ray_jobs.search.telemetry import TrialMetrics
from ray_jobs.search.trainables import TrainableSpec, decoded, executor
from ray_jobs.search.trial_models import TrialModels
from ray_jobs.search.trials import TrialRecord, TrialRecords
from ray_jobs.training.telemetry import METRIC


@dataclass(frozen=True)
class BestTrial:
    """The configuration that the later stages use."""

    experiment: ExperimentConfig
    parameters: dict[str, Any]
    """The settings that the search chose; empty if there was none."""
    validation_rmse: float | None
    """Of the chosen trial, in stars."""
    num_trials: int
    """Trials that the choice was made from."""


def search(
    workspace: Workspace, prepared: PreparedDataset, loss: LossName | None = None
) -> BestTrial:
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
        return BestTrial(config.experiment, {}, None, 0)
    name = f"tune-{loss}" if loss else "tune"
    paths = workspace.paths.search(loss)
    folder, best, trials = paths.folder, paths.best_config, paths.trials

    def work() -> None:
        records = open_records(config, prepared, folder, afresh=workspace.force)
        models = TrialModels(records.models_folder, config.tune.keep_models)
        _run_missing_trials(config, prepared, records, models, workspace.paths.ray(name))
        _write_results(records, models, config, folder)

    key = fingerprint(_identity(config, prepared), config.tune.num_trials)
    workspace.stage(name, key, [best, trials], work)
    values = best.read_json()
    return BestTrial(
        experiment=with_parameters(config.experiment, values["parameters"]),
        parameters=values["parameters"],
        validation_rmse=values["validation_rmse"],
        num_trials=values["num_trials"],
    )


def open_records(
    config: JobConfig, prepared: PreparedDataset, folder: Storage, *, afresh: bool = False
) -> TrialRecords:
    """What is known about the trials of a search, or ``afresh`` nothing; it lies in ``folder``.

    Other settings have other records beside these, so that a return to the earlier ones loses none.
    """
    records = TrialRecords(SearchPaths(folder).records(_identity(config, prepared)))
    if afresh:
        records.delete()
    return records


def _identity(config: JobConfig, prepared: PreparedDataset) -> str:
    """A fingerprint of all that makes it this search and no other."""
    # Trials come out the same however many there are, and whatever runs them.
    others = {
        "num_trials",
        "max_concurrent_trials",
        "also_on_cpus",
        "executor",
        "keep_models",
        "live_table",
        "mlflow_uri",
    }
    return fingerprint(
        STAGE_VERSION,
        prepared.manifest.fingerprint,
        config.experiment.model_dump(mode="json"),
        config.tune.model_dump(mode="json", exclude=others),
        config.scaling.num_workers,
    )


def _run_missing_trials(
    config: JobConfig,
    prepared: PreparedDataset,
    records: TrialRecords,
    models: TrialModels,
    where: Storage,
) -> None:
    """Train those of the search's trials that have not ended yet.

    Args:
        config: the search.
        prepared: the data.
        records: of earlier trials; the further ones are added.
        models: where trials leave their weights.
        where: folder for what Ray writes.
    """
    count = config.tune.num_trials
    missing = len(records.missing(count))
    if missing < count:
        say(f"   {count - missing} of {count} trials are done already, with the same settings")
    if not missing:
        _prune(models, records, others=True)
        return
    ensure_ray(config)
    groups = trial_groups(config)[:missing]
    say(f"   {missing} trials, {len(groups)} at a time: {_devices(groups)}")
    _clear(where, {record.trial_id for record in records.ended()})
    with (
        executor(config, prepared, groups, models, where) as chosen,
        trial_table(records, wanted=config.tune.live_table) as table,
    ):
        logs = mlflow_callbacks(config, where.name)
        chosen = replace(chosen, callbacks=(*chosen.callbacks, *table, *logs))
        _tuner(config, chosen, len(groups), records, models, where).fit()
    _prune(models, records, others=True)


def _prune(models: TrialModels, records: TrialRecords, *, others: bool = False) -> None:
    """Keep the weights of the best trials alone; that this failed must not end a search."""
    try:
        models.prune(records.ended(), others=others)
    except OSError as error:
        say(f"   note: weights of trials could not be deleted in {models.folder}: {error}")


def _clear(where: Storage, kept: set[str]) -> None:
    """Delete what Ray has left, except for its logs of the trials that are ``kept``."""
    for folder in where.list_folders():
        if not any(f"_{trial_id}_" in folder.name for trial_id in kept):
            folder.delete()
    for file in where.list_files():
        file.delete()


def _tuner(
    config: JobConfig,
    chosen: TrainableSpec,
    concurrent: int,
    records: TrialRecords,
    models: TrialModels,
    where: Storage,
) -> Tuner:
    search, count = config.tune, config.tune.num_trials
    scheduler = ResumableASHA(
        records, config.train.epochs, search.grace_epochs, search.reduction_factor
    )
    earlier = records.ended(count)
    lines, metrics = TrialProgress(earlier, count), TrialMetrics(where.name, records, earlier)

    def on_end(record: TrialRecord) -> None:
        lines.ended(record)
        metrics.ended(record)
        _prune(models, records)

    return Tuner(
        chosen.trainable,
        tune_config=TuneConfig(
            num_samples=len(records.missing(count)),
            max_concurrent_trials=concurrent,
            reuse_actors=chosen.reuse_actors,
            search_alg=ResumableSampler(domains(search.space), search.seed, records, count),
            scheduler=scheduler,
        ),
        run_config=RunConfig(
            name=where.name,
            storage_path=where.parent.path,
            storage_filesystem=where.filesystem,
            verbose=0,
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # trials keep none
            callbacks=[*chosen.callbacks, metrics, Recorder(records, scheduler, on_end)],
        ),
    )


def _devices(groups: Sequence[Resources]) -> str:
    counts = Counter("GPU" if group.use_gpu else "CPU" for group in groups)
    workers = groups[0].num_workers
    return " and ".join(f"{n} with {workers} {kind} worker(s) each" for kind, n in counts.items())


def _write_results(
    records: TrialRecords, models: TrialModels, config: JobConfig, folder: Storage
) -> None:
    """``trials.parquet``, ``best_config.toml`` and ``best_config.json``, this one last.

    Raises:
        TrainingError: if every trial failed. They are tried again the next time, since what made
            them fail may be outside of the search.
    """
    paths, trials = SearchPaths(folder), records.ended(config.tune.num_trials)
    paths.trials.write_table(pa.Table.from_pylist([_row(t) for t in trials]))
    judged = [trial for trial in trials if trial.result is not None]
    if not judged:
        records.delete()
        raise TrainingError(f"all {len(trials)} trials failed, the first with: {trials[0].error}")
    best = min(judged, key=lambda trial: trial.result or math.inf)
    parameters = settings_of(decoded(best.parameters))
    experiment = with_parameters(config.experiment, parameters)
    paths.best_experiment.write_text(
        tomli_w.dumps(experiment.model_dump(mode="json", exclude_none=True))
    )
    kept = models.kept(best.trial_id)
    paths.best_config.write_json(
        {
            "trial": best.number,
            "models": kept.path.removeprefix(f"{folder.path}/") if kept else None,
            "parameters": parameters,
            "validation_rmse": best.result,
            "best_epoch": best.best_epoch,
            "num_trials": len(trials),
            "num_failed": len(trials) - len(judged),
            "seed": config.tune.seed,
        }
    )
    say(f"   best of {len(judged)}: validation RMSE {best.result:.4f} with {parameters}")


def _row(trial: TrialRecord) -> dict[str, Any]:
    """A trial's row of ``trials.parquet``."""
    return {
        "trial": trial.number,
        "trial_id": trial.trial_id,
        "state": trial.state,
        "error": trial.error,
        METRIC: trial.epochs[-1][METRIC] if trial.epochs else None,
        "best_epoch": trial.best_epoch,
        "epochs": len(trial.epochs),
        "seconds": trial.seconds,
    } | {f"config.{key}": value for key, value in trial.parameters.items()}


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Bring the stages up to this one up to date."""
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        search(workspace, preprocess(workspace, ingest(workspace)))


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
