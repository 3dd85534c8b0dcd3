"""Compare the losses, several seeds each, with each other and with the baselines.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows; if asked for, they are trained again on both for as many epochs
before. Loss functions are compared on the same scales, so that none is judged by its own yardstick.
Nothing is called better than something else unless their difference on the same rows is more than
chance, as ``ncf.evaluation.significance`` tells it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from ray.train import Checkpoint

from foundation.console import say, show
from foundation.storage import Storage
from ingest.dataset import RawData
from ncf.baselines import Baseline, baseline_specs, fit_baseline
from ncf.config import LossName
from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset
from ncf.evaluation.assessment import ScoredRows, assess
from ncf.evaluation.predictions import Predictions
from ncf.evaluation.slices import slicings
from ray_jobs.cli import main
from ray_jobs.cluster import preflight
from ray_jobs.cluster.resources import Resources
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import LOSS, JobConfig, with_parameters
from ray_jobs.preprocess import ingest, preprocess
from ray_jobs.results.comparison import (
    Comparison,
    ModelResult,
    differences_table,
    pairs,
    predicted,
    table,
)
from ray_jobs.results.final_model import copy_checkpoint
from ray_jobs.results.run import STAGE_VERSION, Workspace, fingerprint
from ray_jobs.training.progress import epoch_progress
from ray_jobs.training.worker import (
    PREDICTIONS,
    TaskResult,
    TrainingTask,
    predictions_file,
    train_tasks,
)
from ray_jobs.tune import BestTrial, search

Choices = dict[LossName, BestTrial]
"""The configuration of each loss."""


@dataclass(frozen=True)
class _Data:
    """The rows of a comparison, and what each is for."""

    selection: PreparedDataset
    """Its training rows teach, its validation rows choose."""
    final: PreparedDataset
    """What is scored on its test rows has learned from its training rows. The same data, or those
    whose training rows include the validation rows."""

    @property
    def refit(self) -> bool:
        """Whether models are trained again before they are scored."""
        return self.selection is not self.final

    @cached_property
    def test(self) -> Batch:
        """``[N]`` rows that are scored."""
        return _rows(self.final, "test")


def _rows(prepared: PreparedDataset, split: str) -> Batch:
    rows = prepared.rows(split)
    assert rows is not None
    return rows


def compare(
    workspace: Workspace, raw: RawData, prepared: PreparedDataset, chosen: BestTrial
) -> Comparison:
    """Train every loss with every seed in one worker group, and score them with the baselines."""
    config = workspace.config
    file, folder = workspace.run / "comparison.json", workspace.run / PREDICTIONS
    choices = _choices(workspace, prepared, chosen)
    data = _Data(prepared, scored(workspace, raw, prepared))
    key = fingerprint(
        STAGE_VERSION,
        data.final.manifest.fingerprint,
        prepared.manifest.fingerprint,
        [choice.experiment.model_dump(mode="json") for choice in choices.values()],
        config.compare.model_dump(mode="json"),
        config.scaling.num_workers,
    )

    def work() -> None:
        ensure_ray(config)
        where = workspace.run / "ray" / "compare"
        where.delete()
        results, kept = _train(config, data, choices, where)
        copy_checkpoint(kept, PREDICTIONS, folder)
        models = tuple(_by_loss(choices, results))
        averaged = _ensembles(models, data, folder) if config.compare.ensembles else ()
        entries = (*_baselines(config, data, folder), *models, *averaged)
        targets = [c.experiment.time_decay.apply_to == "target" for c in choices.values()]
        scale = "decayed" if all(targets) else "stars"
        file.write_json(asdict(_assessed(config, data, entries, scale, folder)))
        where.delete()  # all of it is in the comparison and the predictions

    workspace.stage("compare", key, [file, folder], work)
    comparison = Comparison.from_json(file.read_json())
    show(table(comparison))
    if comparison.assessment.differences:
        show(differences_table(comparison.assessment.differences))
    return comparison


def _choices(workspace: Workspace, prepared: PreparedDataset, chosen: BestTrial) -> Choices:
    """The configuration of each loss: the chosen one, or the winner of the loss's own search."""
    compare = workspace.config.compare
    if compare.trials_per_loss:
        return {loss: search(workspace, prepared, loss) for loss in compare.losses}
    return {
        loss: replace(chosen, experiment=with_parameters(chosen.experiment, {LOSS: loss}))
        for loss in compare.losses
    }


def scored(workspace: Workspace, raw: RawData, prepared: PreparedDataset) -> PreparedDataset:
    """The data on whose test rows models are scored: ``prepared``, or those with its validation
    rows among the training rows, if models are trained again on both."""
    wanted = workspace.config.compare.refit_on_validation
    if wanted and prepared.manifest.counts["validation"]:
        return preprocess(workspace, raw, train_on_validation=True)
    return prepared


def _train(
    config: JobConfig, data: _Data, choices: Choices, where: Storage
) -> tuple[list[TaskResult], Checkpoint]:
    """Every loss and seed; the checkpoint holds the predictions for the test rows."""
    resources = Resources.of(config)
    tasks = [
        TrainingTask(
            f"{loss} seed {seed}",
            data.selection,
            with_parameters(choice.experiment, {"train.seed": seed}),
            score_test=not data.refit,
            keep_predictions=not data.refit,
        )
        for loss, choice in choices.items()
        for seed in config.compare.seeds
    ]
    with epoch_progress() as lines:
        results, kept = train_tasks(tasks, resources, where / "selection", [lines])
    if not data.refit:
        return results, kept
    again = [
        replace(
            task,
            prepared=data.final,
            experiment=with_parameters(task.experiment, {"train.stop_after": result.best_epoch}),
            score_test=True,
            keep_predictions=True,
        )
        for task, result in zip(tasks, results, strict=True)
    ]
    with epoch_progress() as lines:
        finals, kept = train_tasks(again, resources, where / "refit", [lines])
    both = zip(results, finals, strict=True)
    return [replace(r, test=f.test, predictions=f.predictions) for r, f in both], kept


def _by_loss(choices: Choices, results: list[TaskResult]) -> Iterator[ModelResult]:
    for loss, choice in choices.items():
        of_loss = [r for r in results if r.name.startswith(f"{loss} ")]
        yield ModelResult(
            name=f"NCF, {loss}",
            detail=_detail(choice, of_loss),
            kind="model",
            test=tuple(r.test for r in of_loss if r.test),
            validation=tuple(r.validation for r in of_loss if r.validation),
            best_epochs=tuple(r.best_epoch for r in of_loss),
            curves=tuple(tuple(r.epochs) for r in of_loss),
            predictions=tuple(r.predictions for r in of_loss if r.predictions),
        )


def _detail(choice: BestTrial, results: Sequence[TaskResult]) -> str:
    """Seeds, and what a search chose."""
    settings = {key: value for key, value in choice.parameters.items() if key != LOSS}
    parts = [f"seeds {', '.join(str(result.seed) for result in results)}"]
    parts += [
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}"
        for key, value in settings.items()
    ]
    return "; ".join(parts)


def _ensembles(
    models: Sequence[ModelResult], data: _Data, folder: Storage
) -> Iterator[ModelResult]:
    """The mean prediction of each model's seeds, with its predictions written into ``folder``."""
    for model in models:
        if len(model.predictions) < 2:
            continue  # it would be the model itself
        found = [Predictions.from_arrow((folder / f).read_table()) for f in model.predictions]
        name = f"{model.name}, mean of {len(found)} seeds"
        together = Predictions.mean(found)
        yield ModelResult(
            name=name,
            detail="mean prediction",
            kind="ensemble",
            test=(together.score(data.test).as_dict(),),
            validation=(),
            predictions=(_write(name, together, data, folder),),
        )


def _baselines(config: JobConfig, data: _Data, folder: Storage) -> Iterator[ModelResult]:
    """The baselines, with their predictions for the test rows written into ``folder``."""
    train, validation = _rows(data.selection, "train"), data.selection.rows("validation")
    preprocessor = data.selection.preprocessor
    final_train = _rows(data.final, "train") if data.refit else train
    for spec in baseline_specs(len(train), config.compare.baselines):
        say(f"   baseline {spec.name}")
        found = fit_baseline(
            spec, train, validation, preprocessor, config.compare.trials_per_baseline
        )
        finals = (
            found.refit(final_train, data.final.preprocessor, config.compare.seeds)
            if data.refit or found.is_seeded
            else (found.baseline,)
        )
        names = _of_seeds(found.baseline.name, config.compare.seeds[: len(finals)])
        yield ModelResult(
            name=found.baseline.name,
            detail=finals[0].detail,
            kind="baseline",
            test=tuple(
                final.score(data.test, data.final.preprocessor).as_dict() for final in finals
            ),
            validation=(found.baseline.score(validation, preprocessor).as_dict(),)
            if validation
            else (),
            predictions=tuple(
                _write(name, _predict(final, data), data, folder)
                for name, final in zip(names, finals, strict=True)
            ),
        )


def _of_seeds(name: str, seeds: Sequence[int]) -> Sequence[str]:
    return [name] if len(seeds) == 1 else [f"{name} seed {seed}" for seed in seeds]


def _predict(baseline: Baseline, data: _Data) -> Predictions:
    """Predictions as the scores take them: clipped as the models' are."""
    preprocessor = data.final.preprocessor
    stars = (
        baseline.predict(data.test).clamp(preprocessor.rating_min, preprocessor.rating_max).float()
    )
    return Predictions(stars.numpy(), (stars * data.test.weights).numpy())


def _write(name: str, found: Predictions, data: _Data, folder: Storage) -> str:
    """Keep predictions for the test rows; returns the file's name."""
    rows = data.final.table("test", ["row"])["row"].to_numpy()
    file = predictions_file(name)
    (folder / file).write_table(found.to_arrow(rows))
    return file


def _assessed(
    config: JobConfig, data: _Data, entries: tuple[ModelResult, ...], scale: str, folder: Storage
) -> Comparison:
    """The comparison, with what the predictions in ``folder`` tell about the models."""
    models = [entry for entry in entries if entry.kind == "model"]
    # Without validation rows the first loss is looked at: test rows must not choose among models.
    model = _best(models, scale) if models[0].validation else models[0]
    baseline = _best([entry for entry in entries if entry.kind == "baseline"], scale)
    say(
        f"   differences of {len(entries)} models on {len(data.test):,} test rows, "
        f"{config.compare.resamples:,} resamples"
    )
    return Comparison(
        entries=entries,
        scale=scale,
        num_test=len(data.test),
        trials_per_loss=config.compare.trials_per_loss,
        refitted=data.refit,
        model=model.name,
        baseline=baseline.name,
        assessment=assess(
            _test_rows(data, scale),
            ((entry.name, predicted(entry, scale, folder)) for entry in entries),
            pairs(entries, baseline.name),
            [model.name, baseline.name],
            config.compare.resamples,
        ),
    )


def _best(entries: Sequence[ModelResult], scale: str) -> ModelResult:
    """The lowest RMSE on the validation rows; without any, on the test rows.

    Among baselines that is no sin: it can only raise the bar for the models.
    """
    return min(entries, key=lambda entry: entry.figure("rmse", scale, validation=True)[0])


def _test_rows(data: _Data, scale: str) -> ScoredRows:
    weights = data.test.weights if scale == "decayed" else 1.0
    return ScoredRows(
        users=data.final.table("test", ["user_id"])["user_id"].to_numpy(),
        actual=(data.test.ratings * weights).numpy(),
        slicings=slicings(_rows(data.final, "train"), data.test, data.final.preprocessor),
    )


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """The stages up to this one."""
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        raw = ingest(workspace)
        prepared = preprocess(workspace, raw)
        compare(workspace, raw, prepared, search(workspace, prepared))


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
