"""The models of a comparison whose residuals boosted trees correct."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch

from foundation.storage import Storage
from ncf.blending.stacking import StackedMember, StackedRows
from ncf.data.dataset import PreparedDataset
from ncf.data.preprocessor import Floats
from ncf.evaluation.predictions import Predictions
from ray_jobs.config import with_parameters
from ray_jobs.results.comparison import ModelResult
from ray_jobs.stages.compared_baselines import write_predictions
from ray_jobs.stages.compared_blends import stars_of_file
from ray_jobs.stages.compared_models import ComparedModel
from ray_jobs.stages.rows import rows_of
from ray_jobs.stages.stacking import OutOfFold, StackedFit
from ray_jobs.training.run_tasks import Run
from ray_jobs.training.tasks import (
    CallResult,
    CallTask,
    predictions_file,
    save_predictions,
)

MEMBER: Final = "residual-boosting"


@dataclass(frozen=True)
class Corrected:
    """A model of the comparison with boosted trees that correct it."""

    name: str
    """Of the corrected model."""
    model: ComparedModel
    trials: int
    score_test: bool
    key: str
    """Fingerprint of everything that its result depends on."""

    def fit(self, seed: int, epoch: int, folder: Storage) -> StackedFit:
        """What is fitted for one seed of the model, whose best epoch is given; out-of-fold
        predictions go into ``folder``."""
        data = self.model.data
        experiment = with_parameters(self.model.experiment, {"train.seed": seed})
        place = folder / predictions_file(self.name) / self.key / f"seed-{seed}-epoch-{epoch}"
        parts = [("selection", data.selection)] + ([("refit", data.final)] if data.refit else [])
        first, *others = (
            OutOfFold.of_epoch(experiment, epoch, rows, place / part) for part, rows in parts
        )
        return StackedFit(MEMBER, first, others[0] if others else None, self.trials)


@dataclass(frozen=True)
class Scored:
    """Errors of one seed, and names of the files with its predictions."""

    validation: Mapping[str, object]
    validation_predictions: str
    test: Mapping[str, object] | None
    predictions: str | None
    detail: str


def correct(
    models: Sequence[tuple[Corrected, ModelResult]],
    seeds: Sequence[int],
    run: Run,
    work: Storage,
    folder: Storage,
) -> Iterator[ModelResult]:
    """The results of the corrected models, each as soon as it is complete.

    Args:
        models: each with the result of the model that is corrected.
        seeds: of the models.
        run: does tasks.
        work: folder for out-of-fold predictions.
        folder: that of predictions.
    """
    fits = {
        f"{each.name} seed {seed}": (each, result, number, each.fit(seed, epoch, work))
        for each, result in models
        for number, (seed, epoch) in enumerate(zip(seeds, result.best_epochs, strict=True))
    }
    list(run([task for label, (*_, fit) in fits.items() for task in fit.tasks(label)]))
    last = [
        CallTask(
            label,
            fit.selection.data,
            partial(_scored, each, result, number, fit, label, folder),
            "correction",
        )
        for label, (each, result, number, fit) in fits.items()
    ]
    waiting, done = [each for each, _ in models], dict[str, Scored]()
    for call in run(last):
        if isinstance(call, CallResult):
            done[call.name] = call.value
        for each in list(waiting):
            labels = [f"{each.name} seed {seed}" for seed in seeds]
            if all(label in done for label in labels):
                waiting.remove(each)
                yield _result(each, [done[label] for label in labels])


def _result(model: Corrected, of_seeds: Sequence[Scored]) -> ModelResult:
    return ModelResult(
        name=model.name,
        detail=of_seeds[0].detail + (" (of the first seed)" if len(of_seeds) > 1 else ""),
        kind="blend",
        test=tuple(dict(each.test) for each in of_seeds if each.test),
        validation=tuple(dict(each.validation) for each in of_seeds),
        predictions=tuple(each.predictions for each in of_seeds if each.predictions),
        validation_predictions=tuple(each.validation_predictions for each in of_seeds),
    )


def _scored(
    model: Corrected,
    of_model: ModelResult,
    number: int,
    fit: StackedFit,
    label: str,
    folder: Storage,
) -> Scored:
    """Fit one, and write its predictions."""
    data = replace(model.model.data)  # without the rows that it has read
    known = stars_of_file(folder / of_model.validation_predictions[number])
    first, final = fit.fit(StackedRows(rows_of(data.selection, "validation"), known))
    on_validation = _predictions(first, known, data.selection, "validation")
    validation_file = predictions_file(f"{label}, validation")
    save_predictions(on_validation, data.selection, "validation", folder / validation_file)
    test, file = None, None
    if model.score_test:
        known = stars_of_file(folder / of_model.predictions[number])
        on_test = _predictions(final, known, data.final, "test")
        file = write_predictions(label, on_test, data, folder)
        test = on_test.score(data.test).as_dict()
    validation = on_validation.score(rows_of(data.selection, "validation")).as_dict()
    return Scored(validation, validation_file, test, file, final.detail)


def _predictions(
    member: StackedMember, network: Floats, data: PreparedDataset, split: str
) -> Predictions:
    rows, low, high = (
        rows_of(data, split),
        data.preprocessor.rating_min,
        data.preprocessor.rating_max,
    )
    stars = member.predict_from(torch.from_numpy(network), rows).clamp(low, high).float()
    return Predictions(stars.numpy(), (stars * rows.weights).numpy())
