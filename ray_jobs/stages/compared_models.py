"""The models of a comparison: which ones there are, on which data, and their training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from foundation.storage import Storage
from ingest.raw_data import RawData
from ncf.config import ExperimentConfig
from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset
from ncf.errors import DataError
from ncf.evaluation.predictions import Predictions
from ray_jobs.config import LOSS, CompareConfig, ComparedConfig, with_parameters
from ray_jobs.results.comparison import ModelResult
from ray_jobs.results.run import Workspace
from ray_jobs.stages.preparation import preprocess
from ray_jobs.stages.rows import rows_of
from ray_jobs.stages.tuning import BestTrial, search
from ray_jobs.training.run_tasks import Train
from ray_jobs.training.tasks import TrainingResult, TrainingTask, predictions_file
from ray_jobs.training.workers import Workers


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
    tried: int = 0
    """Settings that the search tried; 0 of a fixed configuration."""


# -- Which models there are ------------------------------------------------------------------------


def losses_to_compare(
    workspace: Workspace, data: ComparedData, best_trial: BestTrial, workers: Workers
) -> Iterator[ComparedModel]:
    """Each loss with the settings of the best trial, or of the best one of its own search."""
    compare = workspace.config.compare
    for loss in compare.losses:
        if compare.trials_per_loss:
            best = search(workspace, data.selection, workers, loss)
            experiment, parameters, tried = best.experiment, best.parameters, best.num_trials
        else:
            experiment = with_parameters(best_trial.experiment, {LOSS: loss})
            parameters, tried = best_trial.parameters, best_trial.num_trials
        yield ComparedModel(f"NCF, {loss}", loss, data, experiment, parameters, tried)


def configurations_to_compare(
    workspace: Workspace, raw: RawData, data: ComparedData, workers: Workers
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
            known[own] = _prepared_for(name, settings, workspace, raw, workers, refit=data.refit)
            check_rows(name, known[own], data, with_test=config.compare.score_test)
        yield ComparedModel(name, name, known[own], settings.experiment, {})


def _preparation(settings: ComparedConfig) -> tuple[Any, ...]:
    """What of a configuration prepared data depend on."""
    decay = settings.time_decay
    return settings.features, decay.rate_per_day, decay.reference


def _prepared_for(
    name: str,
    settings: ComparedConfig,
    workspace: Workspace,
    raw: RawData,
    workers: Workers,
    *,
    refit: bool,
) -> ComparedData:
    changes = {"features": settings.features, "time_decay": settings.time_decay}
    own = replace(workspace, config=workspace.config.model_copy(update=changes))
    selection = preprocess(own, raw, workers, owner=name)
    if not refit:
        return ComparedData(selection, selection)
    final = preprocess(own, raw, workers, train_on_validation=True, owner=name)
    return ComparedData(selection, final)


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


def members_of_blends(compare: CompareConfig) -> frozenset[str]:
    """Names of the models and baselines whose predictions for the validation rows are needed:
    members of a blend, and models that trees correct."""
    blended = (name for members in compare.blends.values() for name in members)
    return frozenset([*blended, *compare.residual_boosting.values()])


# -- Training --------------------------------------------------------------------------------------


def train_models(
    models: Sequence[ComparedModel],
    compare: CompareConfig,
    metric: str,
    predictions: Storage,
    trained: Train,
) -> Iterator[tuple[ComparedModel, list[TrainingResult]]]:
    """Train every model with every seed, and yield each model that is complete with its results,
    one a seed.

    Args:
        models: what to train.
        compare: seeds, and what is scored.
        metric: chooses the best epochs.
        predictions: folder for the predictions for the test rows.
        trained: trains tasks, and yields results as they come.
    """
    refit = any(model.data.refit for model in models)
    score = compare.score_test and not refit
    tasks, refits = list[TrainingTask](), list[TrainingTask]()
    names: dict[str, list[tuple[str, str]]] = {}
    """Of each model, the tasks that choose the best epoch and that train the scored weights."""
    for model in models:
        names[model.name] = []
        for seed in compare.seeds:
            task = _selection(
                model,
                seed,
                metric,
                predictions,
                score_test=score,
                with_validation=model.name in members_of_blends(compare),
            )
            last = _refit(task, model.data.final) if refit else task
            tasks.append(task)
            refits += [last] if refit else []
            names[model.name].append((task.name, last.name))
    waiting, results = list(models), dict[str, TrainingResult]()
    for result in trained([*tasks, *refits]):
        results[result.name] = result
        for model in [m for m in waiting if all(last in results for _, last in names[m.name])]:
            waiting.remove(model)
            pairs = [(results[first], results[last]) for first, last in names[model.name]]
            yield model, [replace(r, test=s.test, predictions=s.predictions) for r, s in pairs]


def _selection(
    model: ComparedModel,
    seed: int,
    metric: str,
    predictions: Storage,
    *,
    score_test: bool,
    with_validation: bool,
) -> TrainingTask:
    """The training that chooses the best epoch."""
    name = f"{model.label} seed {seed}"
    return TrainingTask(
        name,
        model.data.selection,
        with_parameters(model.experiment, {"train.seed": seed}),
        score_test=score_test,
        predictions=predictions / predictions_file(name),
        validation_predictions=predictions / predictions_file(f"{name}, validation")
        if with_validation
        else None,
        metric=metric,
    )


def _refit(task: TrainingTask, final: PreparedDataset) -> TrainingTask:
    """The same on the rows that include the validation rows, up to the best epoch."""
    return replace(
        task,
        name=f"{task.name}, refit",
        prepared=final,
        score_test=True,
        validation_predictions=None,
        stop_at_best_of=task.name,
    )


# -- Results ---------------------------------------------------------------------------------------


def result_of(model: ComparedModel, results: Sequence[TrainingResult]) -> ModelResult:
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
        validation_predictions=tuple(
            r.validation_predictions for r in results if r.validation_predictions
        ),
    )


def _detail(parameters: Mapping[str, Any], results: Sequence[TrainingResult]) -> str:
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
