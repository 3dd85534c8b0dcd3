"""The models of a comparison: which ones there are, on which data, and their training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ray.train import Checkpoint

from foundation.storage import Storage
from ingest.dataset import RawData
from ncf.config import ExperimentConfig
from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset
from ncf.errors import DataError
from ncf.evaluation.predictions import Predictions
from ray_jobs.cluster.resources import Resources
from ray_jobs.config import LOSS, CompareConfig, ComparedConfig, with_parameters
from ray_jobs.results.comparison import ModelResult
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.run import Workspace
from ray_jobs.stages.preparation import preprocess
from ray_jobs.stages.tuning import BestTrial, search
from ray_jobs.training.progress import epoch_progress
from ray_jobs.training.tasks import PREDICTIONS, TaskResult, TrainingTask, predictions_file
from ray_jobs.training.torch_trainers import train_tasks


@dataclass(frozen=True)
class ComparedData:
    """Prepared rows that models are chosen on, and rows that they are scored with."""

    selection: PreparedDataset
    """Models learn from its training rows and are chosen on its validation rows."""
    final: PreparedDataset
    """What is scored on its test rows was trained on its training rows. The same data, or those
    whose training rows include the validation rows."""

    @property
    def refit(self) -> bool:
        """Whether models are trained again before they are scored."""
        return self.selection.manifest.fingerprint != self.final.manifest.fingerprint

    @cached_property
    def test(self) -> Batch:
        """``[N]`` rows that are scored."""
        return rows_of(self.final, "test")


@dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison, to be trained with several seeds."""

    name: str
    """Name in tables."""
    label: str
    """Names its training in progress lines, metrics and files."""
    data: ComparedData
    experiment: ExperimentConfig
    parameters: dict[str, Any]
    """The settings of ``experiment`` that a search chose."""


def rows_of(prepared: PreparedDataset, split: str) -> Batch:
    """The rows of a split that has some."""
    rows = prepared.rows(split)
    assert rows is not None
    return rows


def scored(
    workspace: Workspace, raw: RawData, prepared: PreparedDataset, *, owner: str = ""
) -> PreparedDataset:
    """The data on whose test rows models are scored: ``prepared``, or those with its validation
    rows among the training rows, if models are trained again on both."""
    compare = workspace.config.compare
    wanted = compare.refit_on_validation and compare.score_test
    if wanted and prepared.manifest.counts["validation"]:
        return preprocess(workspace, raw, train_on_validation=True, owner=owner)
    return prepared


# -- Which models there are ------------------------------------------------------------------------


def losses_to_compare(
    workspace: Workspace, data: ComparedData, best_trial: BestTrial
) -> Iterator[ComparedModel]:
    """Each loss with the settings of the best trial, or of the best one of its own search."""
    compare = workspace.config.compare
    for loss in compare.losses:
        if compare.trials_per_loss:
            best = search(workspace, data.selection, loss)
            experiment, parameters = best.experiment, best.parameters
        else:
            experiment = with_parameters(best_trial.experiment, {LOSS: loss})
            parameters = best_trial.parameters
        yield ComparedModel(f"NCF, {loss}", loss, data, experiment, parameters)


def configurations_to_compare(
    workspace: Workspace, raw: RawData, data: ComparedData
) -> Iterator[ComparedModel]:
    """Each fixed configuration, those with features or weights of their own on data of their own.

    Raises:
        DataError: if these data do not have the rows of the comparison.
    """
    config = workspace.config
    known = {
        _preparation(ComparedConfig(features=config.features, time_decay=config.time_decay)): data
    }
    for name, settings in config.compare.configurations.items():
        own = _preparation(settings)
        if own not in known:
            known[own] = _prepared_for(name, settings, workspace, raw)
            check_rows(name, known[own], data, with_test=config.compare.score_test)
        yield ComparedModel(name, name, known[own], settings.experiment, {})


def _preparation(settings: ComparedConfig) -> tuple[Any, ...]:
    """What of a configuration prepared data depend on."""
    decay = settings.time_decay
    return settings.features, decay.rate_per_day, decay.reference


def _prepared_for(
    name: str, settings: ComparedConfig, workspace: Workspace, raw: RawData
) -> ComparedData:
    changes = {"features": settings.features, "time_decay": settings.time_decay}
    own = replace(workspace, config=workspace.config.model_copy(update=changes))
    selection = preprocess(own, raw, owner=name)
    return ComparedData(selection, scored(own, raw, selection, owner=name))


def check_rows(name: str, data: ComparedData, common: ComparedData, *, with_test: bool) -> None:
    """Refuse data whose rows are not those of the comparison.

    Raises:
        DataError: naming the configuration and the split.
    """
    columns = ["row", "user_id", "rating"]
    splits = ("train", "validation", "test") if with_test else ("train", "validation")
    for own, expected in ((data.selection, common.selection), (data.final, common.final)):
        for split in splits:
            counts = [each.manifest.counts[split] for each in (own, expected)]
            if counts[0] != counts[1] or (
                counts[0] and not own.table(split, columns).equals(expected.table(split, columns))
            ):
                raise DataError(
                    f"the data of compare.configurations.{name} have {counts[0]:,} {split} rows "
                    f"that are not the {counts[1]:,} of the comparison, so errors on them cannot "
                    f"be compared. Prepare both again with --force: {own.folder}, "
                    f"{expected.folder}"
                )


# -- Training --------------------------------------------------------------------------------------


def train_models(
    models: Sequence[ComparedModel],
    compare: CompareConfig,
    metric: str,
    resources: Resources,
    paths: RunPaths,
) -> tuple[list[list[TaskResult]], Checkpoint]:
    """Train every model with every seed in one worker group; ``metric`` chooses the best epochs.

    Returns:
        results of each model, one a seed, and a checkpoint with the predictions for the test rows.
    """
    refit = any(model.data.refit for model in models)
    pairs = [(model, seed) for model in models for seed in compare.seeds]
    score = compare.score_test and not refit
    tasks = [_selection(model, seed, metric, score_test=score) for model, seed in pairs]
    if refit:
        finals = [model.data.final for model, _ in pairs]
        tasks += [_refit(task, final) for task, final in zip(tasks, finals, strict=True)]
    with epoch_progress(paths.name, resources) as lines:
        results, checkpoint = train_tasks(tasks, resources, paths.ray("compare"), [lines])
    if refit:
        both = zip(results[: len(pairs)], results[len(pairs) :], strict=True)
        results = [replace(r, test=s.test, predictions=s.predictions) for r, s in both]
    count = len(compare.seeds)
    return [results[i : i + count] for i in range(0, len(results), count)], checkpoint


def _selection(model: ComparedModel, seed: int, metric: str, *, score_test: bool) -> TrainingTask:
    """The training that chooses the best epoch."""
    name = f"{model.label} seed {seed}"
    return TrainingTask(
        name,
        model.data.selection,
        with_parameters(model.experiment, {"train.seed": seed}),
        score_test=score_test,
        predictions=predictions_file(name),
        metric=metric,
    )


def _refit(task: TrainingTask, final: PreparedDataset) -> TrainingTask:
    """The same on the rows that include the validation rows, up to the best epoch."""
    return replace(
        task,
        name=f"{task.name}, refit",
        prepared=final,
        score_test=True,
        stop_at_best_of=task.name,
    )


def copy_predictions(checkpoint: Checkpoint, names: Sequence[str], folder: Storage) -> None:
    """Copy files with predictions from a checkpoint into ``folder``."""
    with checkpoint.as_directory() as source:
        for name in names:
            (folder / name).write_bytes((Path(source) / PREDICTIONS / name).read_bytes())


# -- Results ---------------------------------------------------------------------------------------


def result_of(model: ComparedModel, results: Sequence[TaskResult]) -> ModelResult:
    """The row of the comparison for one model."""
    return ModelResult(
        name=model.name,
        detail=_detail(model.parameters, results),
        kind="model",
        test=tuple(r.test for r in results if r.test),
        validation=tuple(r.validation for r in results if r.validation),
        best_epochs=tuple(r.best_epoch for r in results),
        curves=tuple(tuple(r.epochs) for r in results),
        predictions=tuple(r.predictions for r in results if r.predictions),
    )


def _detail(parameters: Mapping[str, Any], results: Sequence[TaskResult]) -> str:
    """Seeds, and what a search chose."""
    settings = {key: value for key, value in parameters.items() if key != LOSS}
    parts = [f"seeds {', '.join(str(result.seed) for result in results)}"]
    parts += [
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}"
        for key, value in settings.items()
    ]
    return "; ".join(parts)


def has_weights_of(data: ComparedData, common: ComparedData) -> bool:
    """Whether rows have the same decay weights in both."""
    own, expected = data.final.preprocessor, common.final.preprocessor
    return (own.decay_rate_per_day, own.decay_reference) == (
        expected.decay_rate_per_day,
        expected.decay_reference,
    )


def with_weights_of(common: ComparedData, result: ModelResult, folder: Storage) -> ModelResult:
    """``result`` with decayed errors by the weights of the comparison's own test rows.

    A model with another time decay has other weights, on which its decayed errors would be those of
    other targets. Its predictions in ``folder`` are written again.
    """
    test = []
    for figures, name in zip(result.test, result.predictions, strict=True):
        table = (folder / name).read_table()
        stars = Predictions.from_arrow(table).stars.copy()  # tensors need memory of their own
        predictions = Predictions(stars, stars * common.test.weights.numpy())
        test.append({**figures, "decayed": predictions.score(common.test).as_dict()["decayed"]})
        (folder / name).write_table(predictions.to_arrow(table["row"].to_numpy()))
    return replace(result, test=tuple(test))
