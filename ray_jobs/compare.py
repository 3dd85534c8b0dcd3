"""Compare the losses, several seeds each, with each other and with the baselines.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows; with ``compare.refit_on_validation`` they are first trained again
on both for as many epochs. All losses are scored on the same scales. A model is called better than
another one only if their difference on the same rows is significant
(``ncf.evaluation.significance``).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

from ray.train import Checkpoint

from foundation.console import show
from foundation.storage import Storage
from ingest.dataset import RawData
from ncf.baselines import Baseline, baseline_specs, fit_baseline
from ncf.config import ExperimentConfig, LossName
from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset
from ncf.evaluation.assessment import ScoredRows, assess
from ncf.evaluation.predictions import Predictions
from ncf.evaluation.slices import slicings
from ray_jobs.cli import main
from ray_jobs.cluster import preflight
from ray_jobs.cluster.resources import Resources
from ray_jobs.cluster.session import claim_resources
from ray_jobs.config import LOSS, CompareConfig, JobConfig, with_parameters
from ray_jobs.preprocess import preprocess
from ray_jobs.results.comparison import (
    Comparison,
    ModelResult,
    differences_table,
    pairs,
    predicted,
    table,
)
from ray_jobs.results.final_model import copy_checkpoint
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage
from ray_jobs.stages import Stages
from ray_jobs.training.progress import epoch_progress
from ray_jobs.training.tasks import (
    PREDICTIONS,
    TaskResult,
    TrainingTask,
    predictions_file,
)
from ray_jobs.training.torch_trainers import train_tasks
from ray_jobs.tune import BestTrial, search

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LossSettings:
    """The configuration that one loss is trained with."""

    loss: LossName
    experiment: ExperimentConfig
    parameters: dict[str, Any]
    """The settings of ``experiment`` that a search chose."""


@dataclass(frozen=True)
class CompareInputs:
    """Everything that a comparison depends on."""

    selection: PreparedDataset
    """Models learn from its training rows and are chosen on its validation rows."""
    final: PreparedDataset
    """What is scored on its test rows was trained on its training rows. The same data, or those
    whose training rows include the validation rows."""
    losses: tuple[LossSettings, ...]
    compare: CompareConfig
    num_workers: int
    metric: str = "rmse"
    """Name of the metric that chooses the best epoch."""

    @property
    def refit(self) -> bool:
        """Whether models are trained again before they are scored."""
        return self.selection is not self.final

    @cached_property
    def test(self) -> Batch:
        """``[N]`` rows that are scored."""
        return _rows(self.final, "test")

    @property
    def scale(self) -> str:
        """The scale that the models are trained on: ``decayed`` if all are, else ``stars``."""
        targets = [settings.experiment.time_decay.apply_to for settings in self.losses]
        return "decayed" if all(target == "target" for target in targets) else "stars"


def _rows(prepared: PreparedDataset, split: str) -> Batch:
    rows = prepared.rows(split)
    assert rows is not None
    return rows


def compare(
    workspace: Workspace, raw: RawData, prepared: PreparedDataset, best_trial: BestTrial
) -> Comparison:
    """Train every loss with every seed in one worker group, and score them with the baselines."""
    config, paths = workspace.config, workspace.paths
    losses = tuple(_settings(workspace, prepared, best_trial))
    inputs = CompareInputs(
        selection=prepared,
        final=scored(workspace, raw, prepared),
        losses=losses,
        compare=config.compare,
        num_workers=config.scaling.num_workers,
        metric=config.tune.metric,
    )
    work = partial(_compare, paths=paths, resources=partial(claim_resources, config))
    workspace.update(Stage("compare", inputs, (paths.comparison, paths.predictions), work))
    comparison = Comparison.from_json(paths.comparison.read_json())
    show(table(comparison))
    if comparison.assessment.differences:
        show(differences_table(comparison.assessment.differences))
    return comparison


def _compare(inputs: CompareInputs, paths: RunPaths, resources: Callable[[], Resources]) -> None:
    """The work of the stage, written to ``paths``."""
    where, folder = paths.ray("compare"), paths.predictions
    where.delete()
    results, checkpoint = _train(inputs, resources(), where)
    copy_checkpoint(checkpoint, PREDICTIONS, folder)
    models = tuple(_by_loss(inputs.losses, results))
    ensembles = _ensembles(models, inputs, folder) if inputs.compare.ensembles else ()
    entries = (*_baselines(inputs, folder), *models, *ensembles)
    paths.comparison.write_json(asdict(_assessed(inputs, entries, folder)))
    where.delete()  # all of it is in the comparison and the predictions


def _settings(
    workspace: Workspace, prepared: PreparedDataset, best_trial: BestTrial
) -> Iterator[LossSettings]:
    """Each loss with the settings of the best trial, or of the best one of its own search."""
    compare = workspace.config.compare
    for loss in compare.losses:
        if compare.trials_per_loss:
            best = search(workspace, prepared, loss)
            yield LossSettings(loss, best.experiment, best.parameters)
        else:
            experiment = with_parameters(best_trial.experiment, {LOSS: loss})
            yield LossSettings(loss, experiment, best_trial.parameters)


def scored(workspace: Workspace, raw: RawData, prepared: PreparedDataset) -> PreparedDataset:
    """The data on whose test rows models are scored: ``prepared``, or those with its validation
    rows among the training rows, if models are trained again on both."""
    wanted = workspace.config.compare.refit_on_validation
    if wanted and prepared.manifest.counts["validation"]:
        return preprocess(workspace, raw, train_on_validation=True)
    return prepared


def _train(
    inputs: CompareInputs, resources: Resources, where: Storage
) -> tuple[list[TaskResult], Checkpoint]:
    """Every loss and seed; the checkpoint holds the predictions for the test rows."""
    tasks = [
        TrainingTask(
            f"{settings.loss} seed {seed}",
            inputs.selection,
            with_parameters(settings.experiment, {"train.seed": seed}),
            score_test=not inputs.refit,
            save_predictions=not inputs.refit,
            metric=inputs.metric,
        )
        for settings in inputs.losses
        for seed in inputs.compare.seeds
    ]
    with epoch_progress() as lines:
        results, checkpoint = train_tasks(tasks, resources, where / "selection", [lines])
    if not inputs.refit:
        return results, checkpoint
    again = [
        replace(
            task,
            prepared=inputs.final,
            experiment=with_parameters(task.experiment, {"train.stop_after": result.best_epoch}),
            score_test=True,
            save_predictions=True,
        )
        for task, result in zip(tasks, results, strict=True)
    ]
    with epoch_progress() as lines:
        finals, checkpoint = train_tasks(again, resources, where / "refit", [lines])
    both = zip(results, finals, strict=True)
    return [replace(r, test=f.test, predictions=f.predictions) for r, f in both], checkpoint


def _by_loss(
    losses: Sequence[LossSettings], results: Sequence[TaskResult]
) -> Iterator[ModelResult]:
    for settings in losses:
        of_loss = [r for r in results if r.name.startswith(f"{settings.loss} ")]
        yield ModelResult(
            name=f"NCF, {settings.loss}",
            detail=_detail(settings.parameters, of_loss),
            kind="model",
            test=tuple(r.test for r in of_loss if r.test),
            validation=tuple(r.validation for r in of_loss if r.validation),
            best_epochs=tuple(r.best_epoch for r in of_loss),
            curves=tuple(tuple(r.epochs) for r in of_loss),
            predictions=tuple(r.predictions for r in of_loss if r.predictions),
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


def _ensembles(
    models: Sequence[ModelResult], inputs: CompareInputs, folder: Storage
) -> Iterator[ModelResult]:
    """The mean prediction of each model's seeds, with its predictions written into ``folder``."""
    for model in models:
        if len(model.predictions) < 2:
            continue  # it would be the model itself
        of_seeds = [Predictions.from_arrow((folder / f).read_table()) for f in model.predictions]
        name = f"{model.name}, mean of {len(of_seeds)} seeds"
        predictions = Predictions.mean(of_seeds)
        yield ModelResult(
            name=name,
            detail="mean prediction",
            kind="ensemble",
            test=(predictions.score(inputs.test).as_dict(),),
            validation=(),
            predictions=(_write(name, predictions, inputs, folder),),
        )


def _baselines(inputs: CompareInputs, folder: Storage) -> Iterator[ModelResult]:
    """The baselines, with their predictions for the test rows written into ``folder``."""
    selection, final, seeds = inputs.selection, inputs.final, inputs.compare.seeds
    train, validation = _rows(selection, "train"), selection.rows("validation")
    final_train = _rows(final, "train") if inputs.refit else train
    for spec in baseline_specs(len(train), inputs.compare.baselines):
        logger.info(f"   baseline {spec.name}")
        fitted = fit_baseline(
            spec, train, validation, selection.preprocessor, inputs.compare.trials_per_baseline
        )
        finals = (
            fitted.refit(final_train, final.preprocessor, seeds)
            if inputs.refit or fitted.is_seeded
            else (fitted.baseline,)
        )
        name = fitted.baseline.name
        files = zip(_of_seeds(name, seeds[: len(finals)]), finals, strict=True)
        yield ModelResult(
            name=name,
            detail=finals[0].detail,
            kind="baseline",
            test=tuple(b.score(inputs.test, final.preprocessor).as_dict() for b in finals),
            validation=(fitted.baseline.score(validation, selection.preprocessor).as_dict(),)
            if validation
            else (),
            predictions=tuple(
                _write(file, _predict(baseline, inputs), inputs, folder) for file, baseline in files
            ),
        )


def _of_seeds(name: str, seeds: Sequence[int]) -> Sequence[str]:
    return [name] if len(seeds) == 1 else [f"{name} seed {seed}" for seed in seeds]


def _predict(baseline: Baseline, inputs: CompareInputs) -> Predictions:
    """Predictions as the scores take them: clipped as the models' are."""
    low, high = inputs.final.preprocessor.rating_min, inputs.final.preprocessor.rating_max
    stars = baseline.predict(inputs.test).clamp(low, high).float()
    return Predictions(stars.numpy(), (stars * inputs.test.weights).numpy())


def _write(name: str, predictions: Predictions, inputs: CompareInputs, folder: Storage) -> str:
    """Write predictions for the test rows; returns the file's name."""
    rows = inputs.final.table("test", ["row"])["row"].to_numpy()
    file = predictions_file(name)
    (folder / file).write_table(predictions.to_arrow(rows))
    return file


def _assessed(
    inputs: CompareInputs, entries: tuple[ModelResult, ...], folder: Storage
) -> Comparison:
    """The comparison, with what the predictions in ``folder`` tell about the models."""
    scale, compare = inputs.scale, inputs.compare
    models = [entry for entry in entries if entry.kind == "model"]
    # Without validation rows the first loss is looked at: test rows must not choose among models.
    model = _best(models, scale) if models[0].validation else models[0]
    baseline = _best([entry for entry in entries if entry.kind == "baseline"], scale)
    logger.info(
        f"   differences of {len(entries)} models on {len(inputs.test):,} test rows, "
        f"{compare.resamples:,} resamples"
    )
    return Comparison(
        entries=entries,
        scale=scale,
        num_test=len(inputs.test),
        trials_per_loss=compare.trials_per_loss,
        refitted=inputs.refit,
        model=model.name,
        baseline=baseline.name,
        assessment=assess(
            _test_rows(inputs),
            ((entry.name, predicted(entry, scale, folder)) for entry in entries),
            pairs(entries, baseline.name),
            [model.name, baseline.name],
            compare.resamples,
        ),
    )


def _best(entries: Sequence[ModelResult], scale: str) -> ModelResult:
    """The lowest RMSE on the validation rows; without any, on the test rows.

    Choosing the baseline on the test rows can only favour the baseline over the models.
    """
    return min(entries, key=lambda entry: entry.figure("rmse", scale, validation=True)[0])


def _test_rows(inputs: CompareInputs) -> ScoredRows:
    weights = inputs.test.weights if inputs.scale == "decayed" else 1.0
    return ScoredRows(
        users=inputs.final.table("test", ["user_id"])["user_id"].to_numpy(),
        actual=(inputs.test.ratings * weights).numpy(),
        slicings=slicings(_rows(inputs.final, "train"), inputs.test, inputs.final.preprocessor),
    )


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Bring the stages up to this one up to date."""
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        stages = Stages(workspace)
        compare(workspace, stages.raw, stages.prepared, stages.best_trial)


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
