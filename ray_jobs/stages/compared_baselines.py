"""The baselines of a comparison: tuned, fitted and scored on the same rows as the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from foundation.storage import Storage
from ncf.baselines import Baseline, BaselineSpec, FittedBaseline, fit_baseline
from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset
from ncf.evaluation.predictions import Predictions
from ray_jobs.results.comparison import ModelResult
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.stages.rows import rows_of
from ray_jobs.training.tasks import CallTask, predictions_file, save_predictions


@dataclass(frozen=True)
class BaselineInputs:
    """Everything that the result of one baseline depends on."""

    name: str
    data: ComparedData
    seeds: tuple[int, ...]
    trials: int
    score_test: bool
    is_blended: bool = False
    """Whether predictions for the validation rows are written too."""


@dataclass(frozen=True)
class BaselineRows:
    """Rows that a baseline learns from, read when they are used."""

    data: ComparedData

    @cached_property
    def train(self) -> Batch:
        """Training rows for choosing settings."""
        return rows_of(self.data.selection, "train")

    @cached_property
    def validation(self) -> Batch | None:
        """Validation rows, if there are any."""
        return self.data.selection.rows("validation")

    @cached_property
    def final(self) -> Batch:
        """Training rows of what is scored on the test rows."""
        return rows_of(self.data.final, "train") if self.data.refit else self.train


def baseline_task(spec: BaselineSpec[Any], inputs: BaselineInputs, folder: Storage) -> CallTask:
    """The task whose value is ``baseline_result``."""
    data = replace(inputs.data)  # without the rows that it has read
    work = partial(baseline_result, spec, replace(inputs, data=data), folder)
    return CallTask(f"baseline {spec.name}", data.selection, work)


def baseline_result(
    spec: BaselineSpec[Any], inputs: BaselineInputs, folder: Storage
) -> ModelResult:
    """Tune and fit a baseline, and write its predictions for the test rows into ``folder``."""
    data, rows = inputs.data, BaselineRows(inputs.data)
    preprocessor = data.selection.preprocessor
    fitted = fit_baseline(spec, rows.train, rows.validation, preprocessor, inputs.trials)
    scored = _scored(fitted, inputs, rows) if inputs.score_test else ()
    return ModelResult(
        name=fitted.baseline.name,
        detail=(scored or (fitted.baseline,))[0].detail,
        kind="baseline",
        test=tuple(b.score(data.test, data.final.preprocessor).as_dict() for b in scored),
        validation=(fitted.baseline.score(rows.validation, preprocessor).as_dict(),)
        if rows.validation
        else (),
        predictions=tuple(
            write_predictions(name, _clipped(baseline, data.test, data.final), data, folder)
            for name, baseline in zip(
                _of_seeds(spec.name, inputs.seeds, len(scored)), scored, strict=True
            )
        ),
        validation_predictions=_of_validation(fitted, inputs, rows, folder),
    )


def _of_validation(
    fitted: FittedBaseline[Any], inputs: BaselineInputs, rows: BaselineRows, folder: Storage
) -> tuple[str, ...]:
    """The file with predictions for the validation rows, for a member of a blend."""
    if not inputs.is_blended or rows.validation is None:
        return ()
    selection = inputs.data.selection
    predictions = _clipped(fitted.baseline, rows.validation, selection)
    file = predictions_file(f"{fitted.baseline.name}, validation")
    save_predictions(predictions, selection, "validation", folder / file)
    return (file,)


def _scored(
    fitted: FittedBaseline[Any], inputs: BaselineInputs, rows: BaselineRows
) -> tuple[Baseline, ...]:
    """What is scored on the test rows: one for each seed if anything is drawn at random."""
    if inputs.data.refit or fitted.is_seeded:
        return fitted.refit(rows.final, inputs.data.final.preprocessor, inputs.seeds)
    return (fitted.baseline,)


def _of_seeds(name: str, seeds: Sequence[int], count: int) -> Sequence[str]:
    return [name] if count == 1 else [f"{name} seed {seed}" for seed in seeds[:count]]


def _clipped(baseline: Baseline, rows: Batch, prepared: PreparedDataset) -> Predictions:
    """Predictions as the scores take them: clipped as the models' are."""
    low, high = prepared.preprocessor.rating_min, prepared.preprocessor.rating_max
    stars = baseline.predict(rows).clamp(low, high).float()
    return Predictions(stars.numpy(), (stars * rows.weights).numpy())


def write_predictions(
    name: str, predictions: Predictions, data: ComparedData, folder: Storage
) -> str:
    """Write predictions for the test rows; returns the file's name."""
    file = predictions_file(name)
    save_predictions(predictions, data.final, "test", folder / file)
    return file
