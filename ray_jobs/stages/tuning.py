"""Search by Ray Tune and Optuna over losses, layer sizes and more.

Persistent worker groups train the trials (``tune.executor``), ``tune.sampler`` suggests them, and
``tune.scheduler`` stops those that fall behind. They are compared by ``tune.metric`` on the
validation rows, whatever loss they train with; no test row is read. A search that was killed
continues from its records, and so does one with a larger number of trials than before: see
``ray_jobs.search.trials`` and ``ray_jobs.search.resume``.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pyarrow as pa
import tomli_w
from ray import tune as ray_tune
from ray.tune import CheckpointConfig, RunConfig, Tuner

from foundation.config import Section
from foundation.console import say
from foundation.storage import Storage
from ncf.config import ExperimentConfig, LossName
from ncf.data.dataset import PreparedDataset
from ray_jobs.cluster.resources import GroupPlan, Resources
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import JobConfig, TuneConfig, settings_of, with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.results.paths import SearchPaths
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage, key_of
from ray_jobs.results.trackers import mlflow_callbacks
from ray_jobs.search.progress import TrialProgress, trial_table
from ray_jobs.search.resume import (
    Recorder,
    ResumableSampler,
    ResumableScheduler,
    optuna_search,
)
from ray_jobs.search.samplers import check_sampler, sampler
from ray_jobs.search.schedulers import EPOCH, SchedulerSettings, check_scheduler, scheduler
from ray_jobs.search.space import encoded
from ray_jobs.search.study_log import StudyLog, study_log
from ray_jobs.search.telemetry import TrialMetrics
from ray_jobs.search.trainables import TrainableSpec, executor
from ray_jobs.search.trial_models import TrialModels
from ray_jobs.search.trial_names import TrialNames, is_folder_of
from ray_jobs.search.trial_tasks import RatingTrials, TrialTasks
from ray_jobs.search.trials import TrialRecord, TrialRecords
from ray_jobs.training.telemetry import SearchMetric, search_metric
from ray_jobs.training.workers import Workers


@dataclass(frozen=True)
class BestTrial:
    """The configuration that the later stages use."""

    experiment: ExperimentConfig
    parameters: dict[str, Any]
    """The settings that the search chose; empty if there was none."""
    result: float | None
    """``tune.metric`` of the best trial on the validation rows; None without a search."""
    num_trials: int
    """Trials that the choice was made from."""


_CHANGES_NO_TRIAL: Final = frozenset(
    {
        "num_trials",
        "max_concurrent_trials",
        "max_preemptions",
        "also_on_cpus",
        "executor",
        "keep_models",
        "live_table",
        "mlflow_uri",
        "choice",
    }
)
"""Settings of a search that say how many trials there are or what runs them."""


@dataclass(frozen=True)
class TrialInputs:
    """Everything that the trials of a search depend on."""

    prepared: PreparedDataset
    experiment: ExperimentConfig
    tune: dict[str, Any]
    """The settings of the search that change its trials."""
    num_workers: int

    @classmethod
    def of(cls, config: JobConfig, prepared: PreparedDataset) -> TrialInputs:
        """Those of the search of ``config``."""
        tune = settings_of_trials(config.tune)
        return cls(prepared, config.experiment, tune, config.scaling.world_size)


def settings_of_trials(tune: TuneConfig) -> dict[str, Any]:
    """The settings of a search that change its trials."""
    return tune.model_dump(mode="json", exclude=set(_CHANGES_NO_TRIAL))


@dataclass(frozen=True)
class SearchInputs:
    """Everything that the result of a search depends on."""

    trials: Any
    """What its trials depend on, such as ``TrialInputs``."""
    num_trials: int


class Searched(ABC):
    """What a search is for.

    ``config.tune`` has the number of its trials, its space and its metric.
    """

    config: JobConfig

    @property
    @abstractmethod
    def trial_inputs(self) -> Any:
        """Everything that its trials depend on."""

    @property
    @abstractmethod
    def max_epochs(self) -> int:
        """Of a trial."""

    @abstractmethod
    def tasks(self, models: TrialModels, states: Storage | None) -> TrialTasks:
        """The training tasks of its trials, which put their weights into ``models``, and while they
        train their states into ``states``."""

    @abstractmethod
    def with_settings(self, parameters: Mapping[str, Any]) -> Section:
        """The configuration with what a trial chose.

        Raises:
            ValueError: if these settings are not valid (pydantic's ``ValidationError``).
        """

    @property
    def first_parameters(self) -> dict[str, Any] | None:
        """Those of the first trial; None leaves it to the sampler."""
        return None

    @property
    def metric(self) -> SearchMetric:
        """What trials are compared by."""
        return search_metric(self.config.tune.metric)


@dataclass(frozen=True)
class SearchedRatings(Searched):
    """The configuration of the rating model."""

    config: JobConfig
    prepared: PreparedDataset

    @property
    def trial_inputs(self) -> TrialInputs:
        """Everything that its trials depend on."""
        return TrialInputs.of(self.config, self.prepared)

    @property
    def max_epochs(self) -> int:
        """``train.epochs``."""
        return self.config.train.epochs

    def tasks(self, models: TrialModels, states: Storage | None) -> TrialTasks:
        """The training tasks of its trials."""
        tune = self.config.tune
        return RatingTrials(self.prepared, self.config.experiment, models, tune.metric, states)

    def with_settings(self, parameters: Mapping[str, Any]) -> ExperimentConfig:
        """The configuration with what a trial chose."""
        return with_parameters(self.config.experiment, parameters)


def search(
    workspace: Workspace,
    prepared: PreparedDataset,
    workers: Workers,
    loss: LossName | None = None,
) -> BestTrial:
    """The best configuration by ``tune.metric``, from this search or from the same one before.

    Args:
        workspace: where the search's results go.
        prepared: the data.
        workers: what to train on.
        loss: make the search of ``compare.trials_per_loss`` for this loss alone, with results in a
            folder of its own.

    Raises:
        ConfigError: if the sampler or the scheduler is unknown, or a package is missing.
        TrainingError: if every trial failed, with the first reason.
        ResourceError: if not even one trial fits the cluster.
    """
    config = workspace.config.of_loss(loss) if loss else workspace.config
    if not config.tune.num_trials:
        return BestTrial(config.experiment, {}, None, 0)
    searched = SearchedRatings(config, prepared)
    values = best_of(searched, workspace, workers, loss)
    return BestTrial(
        experiment=searched.with_settings(values["parameters"]),
        parameters=values["parameters"],
        result=values[f"validation_{config.tune.metric}"],
        num_trials=values["num_trials"],
    )


def best_of(
    searched: Searched, workspace: Workspace, workers: Workers, of: str | None
) -> dict[str, Any]:
    """``best_config.json`` of a search, from this search or from the same one before.

    Args:
        searched: what it is for.
        workspace: where its results go.
        workers: what to train on.
        of: names the search among those of the run; None for the search of the rating model.

    Raises:
        ConfigError: if the sampler or the scheduler is unknown, or a package is missing.
        TrainingError: if every trial failed, with the first reason.
        ResourceError: if not even one trial fits the cluster.
    """
    name = f"tune-{of}" if of else "tune"
    paths = workspace.paths.search(of)
    inputs = SearchInputs(searched.trial_inputs, searched.config.tune.num_trials)
    if workspace.redo.failed_trials and _records(searched, paths.folder).reopen_failed():
        workspace.paths.stage(name).delete()
    work = partial(
        _search,
        searched=searched,
        workers=workers,
        folder=paths.folder,
        where=workspace.paths.ray(name),
        force=workspace.force,
    )
    workspace.update(Stage(name, inputs, (paths.best_config, paths.trials), work))
    values: dict[str, Any] = paths.best_config.read_json()
    return values


def _search(
    inputs: SearchInputs,
    searched: Searched,
    workers: Workers,
    folder: Storage,
    where: Storage,
    *,
    force: bool,
) -> None:
    """The work of the stage.

    Args:
        inputs: what the trials depend on.
        searched: the same search.
        workers: what to train on.
        folder: of the results.
        where: folder for what Ray writes.
        force: do not continue from records of earlier trials.
    """
    check_search(searched.config)
    records = _records(searched, folder, force=force)
    models = TrialModels(records.models_folder, searched.config.tune.keep_models)
    _run_missing_trials(searched, workers, records, models, where, SearchPaths(folder).study)
    _write_results(records, models, searched, folder)


def check_search(config: JobConfig) -> None:
    """Refuse a search that cannot run here, before any work is done for it.

    Raises:
        ConfigError: if the scheduler or the sampler is unknown.
    """
    if config.tune.num_trials or config.compare.trials_per_loss or config.num_choice_trials:
        check_scheduler(config.tune.scheduler)
        check_sampler(config.tune.sampler)


def open_records(
    config: JobConfig, prepared: PreparedDataset, folder: Storage, *, force: bool = False
) -> TrialRecords:
    """The records of a search for the rating model in ``folder``; with ``force`` they are deleted
    first.

    A search with other settings has its own records beside these, so that both can be continued.
    """
    return _records(SearchedRatings(config, prepared), folder, force=force)


def _records(searched: Searched, folder: Storage, *, force: bool = False) -> TrialRecords:
    identity = key_of(searched.trial_inputs)
    place = SearchPaths(folder).records(identity)
    if force:
        place.delete()  # before it is read: it may be damaged
    return TrialRecords(place, searched.metric)


def _run_missing_trials(
    searched: Searched,
    workers: Workers,
    records: TrialRecords,
    models: TrialModels,
    where: Storage,
    study: Storage,
) -> None:
    """Train those of the search's trials that have not ended yet.

    Args:
        searched: what the search is for.
        workers: what to train on.
        records: of earlier trials; new ones are added.
        models: where trials put their weights.
        where: folder for what Ray writes.
        study: file of the study.
    """
    config = searched.config
    count = config.tune.num_trials
    missing = len(records.missing(count))
    if missing < count:
        say(f"   {count - missing} of {count} trials are done already, with the same settings")
    if not missing:
        _prune(models, records, others=True)
        return
    ensure_ray(config)
    plan = GroupPlan.of(config, for_trials=True)
    at_once = min(config.tune.max_concurrent_trials or missing, missing)
    fitting = plan.fitting()[:at_once]
    say(f"   {missing} trials, {len(fitting)} at a time: {_devices(fitting or [plan.preferred])}")
    states = _states(config, where)
    tasks = searched.tasks(models, states)
    _clear(where, {record.trial_id for record in records.ended()})
    with (
        executor(
            config,
            tasks,
            workers,
            plan,
            at_once,
            where,
            records.metric.key,
        ) as chosen,
        trial_table(records, wanted=config.tune.live_table) as table,
        study_log(study, where.name, config.tune.space, records) as log,
    ):
        logs = mlflow_callbacks(config, where.name)
        chosen = replace(chosen, callbacks=(*chosen.callbacks, *table, *logs, log))
        _tuner(searched, chosen, at_once, records, models, where, workers, log).fit()
    if states:
        states.delete()
    _prune(models, records, others=True)


def _prune(models: TrialModels, records: TrialRecords, *, others: bool = False) -> None:
    """Keep only the weights of the best trials; a failure to delete the others ends no search."""
    try:
        models.prune(records.ended(), others=others)
    except OSError as error:
        say(f"   note: weights of trials could not be deleted in {models.folder}: {error}")


def _delete_state(state: Storage) -> None:
    """Delete the state of a trial that has ended, if it left one; the end of the search deletes
    those for which this fails."""
    with contextlib.suppress(OSError):
        state.delete()


def _states(config: JobConfig, where: Storage) -> Storage | None:
    # An isolated trial reports epochs that it repeats as further ones, so it starts over.
    return where / "states" if config.tune.executor == "persistent" else None


def _clear(where: Storage, kept: set[str]) -> None:
    """Delete what Ray has left, except for its logs of the trials in ``kept``."""
    for folder in where.list_folders():
        if not is_folder_of(folder.name, kept):
            folder.delete()
    for file in where.list_files():
        file.delete()


def _tuner(
    searched: Searched,
    chosen: TrainableSpec,
    concurrent: int,
    records: TrialRecords,
    models: TrialModels,
    where: Storage,
    workers: Workers,
    log: StudyLog,
) -> Tuner:
    config, metric = searched.config, records.metric
    search, count = config.tune, config.tune.num_trials
    settings = SchedulerSettings(
        metric=metric,
        epochs=searched.max_epochs,
        grace_epochs=search.grace_epochs,
        reduction_factor=search.reduction_factor,
        seed=search.seed,
        number_of=lambda trial_id: records.of(trial_id).number,
    )
    stopping = ResumableScheduler(scheduler(search.scheduler, settings), records)
    suggesting = optuna_search(
        search.space, sampler(search.sampler, search.seed), metric, searched.first_parameters
    )
    earlier = records.ended(count)
    lines = TrialProgress(earlier, count)
    metrics = TrialMetrics(config.name, where.name, records, earlier)
    names = TrialNames(where.name, records)
    wanted = workers.wanted  # the workers themselves cannot be pickled, as callbacks are
    wanted.left = len(records.missing(count))

    def on_end(record: TrialRecord) -> None:
        lines.ended(record)
        metrics.ended(record)
        log.ended(record)
        _prune(models, records)
        _delete_state(where / "states" / record.trial_id)
        wanted.left = len(records.missing(count))

    return Tuner(
        chosen.trainable,
        tune_config=ray_tune.TuneConfig(
            num_samples=len(records.missing(count)),
            max_concurrent_trials=concurrent,
            reuse_actors=chosen.reuse_actors,
            trial_name_creator=names.title,
            trial_dirname_creator=names.folder,
            search_alg=ResumableSampler(suggesting, search.space, records, count, chosen.num_ready),
            scheduler=stopping,
        ),
        run_config=RunConfig(
            name=where.name,
            storage_path=where.parent.path,
            storage_filesystem=where.filesystem,
            verbose=0,
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # trials keep none
            callbacks=[*chosen.callbacks, metrics, Recorder(records, stopping, on_end, lines.lost)],
        ),
    )


def _devices(groups: Sequence[Resources]) -> str:
    counts = Counter(group.description for group in groups)
    return " and ".join(f"{count} {description}" for description, count in counts.items())


def _write_results(
    records: TrialRecords, models: TrialModels, searched: Searched, folder: Storage
) -> None:
    """``trials.parquet``, ``best_config.toml`` and ``best_config.json``, this one last.

    Raises:
        TrainingError: if every trial failed. The next call tries them again, because the reason may
            lie outside the search.
    """
    search = searched.config.tune
    paths, trials = SearchPaths(folder), records.ended(search.num_trials)
    paths.trials.write_table(pa.Table.from_pylist([_row(t) for t in trials]))
    judged = [trial for trial in trials if trial.result is not None]
    if not judged:
        records.delete()
        raise TrainingError(f"all {len(trials)} trials failed, the first with: {trials[0].error}")
    best = min(judged, key=lambda trial: trial.cost)
    parameters = settings_of(best.parameters)
    best_settings = searched.with_settings(parameters).model_dump(mode="json", exclude_none=True)
    paths.best_experiment.write_text(tomli_w.dumps(best_settings))
    kept = models.kept(best.trial_id)
    paths.best_config.write_json(
        {
            "trial": best.number,
            "models": kept.path.removeprefix(f"{folder.path}/") if kept else None,
            "parameters": parameters,
            f"validation_{best.metric.name}": best.result,
            "best_epoch": best.best_epoch,
            "num_trials": len(trials),
            "num_failed": len(trials) - len(judged),
            "seed": search.seed,
        }
    )
    result = f"validation {best.metric.title} {best.result:.4f}"
    say(f"   best of {len(judged)}: {result} with {parameters}")


def _row(trial: TrialRecord) -> dict[str, Any]:
    """A trial's row of ``trials.parquet``."""
    return {
        "trial": trial.number,
        "trial_id": trial.trial_id,
        "state": trial.state,
        "error": trial.error,
        trial.metric.key: trial.epochs[-1][trial.metric.key] if trial.epochs else None,
        "best_epoch": trial.best_epoch,
        "epochs": trial.epochs[-1][EPOCH] if trial.epochs else 0,
        "seconds": trial.seconds,
        "waited": trial.waited,
        "losses": trial.losses,
    } | {f"config.{key}": value for key, value in encoded(trial.parameters).items()}
