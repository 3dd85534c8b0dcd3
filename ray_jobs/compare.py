"""Each loss, several seeds, beside the baselines. ``python -m ray_jobs.compare --help``.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows. Loss functions are compared on the same scales, so that none is
judged by its own yardstick. Nothing is called better than something else unless their difference on
the same rows is more than chance, as ``ncf.significance`` tells it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter
from rich.table import Table

from ingest.storage import Storage
from ncf import baselines
from ncf.assessment import Assessment, Rows, assess
from ncf.baselines import Baseline
from ncf.batches import Batch
from ncf.config import ExperimentConfig, LossName
from ncf.predictions import Predictions
from ncf.prepared import Prepared
from ncf.significance import Difference
from ncf.slices import slicings
from ray_jobs.cluster import Resources, ensure_ray, ray_session
from ray_jobs.config import LOSS, JobConfig, with_parameters
from ray_jobs.console import show
from ray_jobs.preprocess import ingest, preprocess
from ray_jobs.progress import epoch_lines
from ray_jobs.runtime import main
from ray_jobs.tune import Chosen, search
from ray_jobs.worker import (
    PREDICTIONS,
    TaskResult,
    TrainingTask,
    copy_checkpoint,
    predictions_file,
    train_tasks,
)
from ray_jobs.workspace import STAGE_VERSION, Workspace, fingerprint

METRICS = ("rmse", "mae", "r2")


@dataclass(frozen=True)
class Entry:
    """One row of the comparison."""

    name: str
    detail: str
    test: tuple[dict[str, Any], ...]
    """Test metrics of each seed; one for a baseline."""
    validation: tuple[dict[str, Any], ...]
    """Validation metrics of each seed; empty without a validation split."""
    best_epochs: tuple[int, ...] = ()
    curves: tuple[tuple[dict[str, Any], ...], ...] = ()
    """Epoch records of each seed."""
    predictions: tuple[str, ...] = ()
    """Files in the run's folder ``predictions``, one a seed: predictions for the test rows."""

    @property
    def is_baseline(self) -> bool:
        """Whether it is one of the baselines."""
        return not self.best_epochs

    def figure(
        self, metric: str, scale: str, *, validation: bool = False
    ) -> tuple[float, float | None]:
        """Mean over seeds of a test metric, and its standard deviation if there are several.

        ``scale`` is ``stars`` or ``decayed``; ``validation`` asks for the metric on the validation
        rows, if there are any.
        """
        of_seeds = (self.validation if validation else ()) or self.test
        values = [s["decayed"][metric] if scale == "decayed" else s[metric] for s in of_seeds]
        return mean(values), stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """Losses and baselines on the same test rows."""

    entries: tuple[Entry, ...]
    scale: str
    """The scale that the models were trained on: ``stars``, or ``decayed`` in the original mode."""
    num_test: int
    trials_per_loss: int
    """Trials of the search that each loss had for itself; 0 if all share one configuration."""
    model: str
    """The loss that is looked at more closely: the best on the validation rows, or the first."""
    baseline: str
    """The baseline that the models are measured against: the best on the validation rows, or on
    the test rows if there are no others."""
    assessment: Assessment
    """Whether differences are more than chance, and where the models err."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Comparison:
        """Read what ``compare`` wrote."""
        return TypeAdapter(cls).validate_python(values)


def compare(workspace: Workspace, prepared: Prepared, chosen: Chosen) -> Comparison:
    """Train every loss with every seed in one worker group, and score them with the baselines."""
    config = workspace.config
    file, folder = workspace.run / "comparison.json", workspace.run / PREDICTIONS
    choices = _choices(workspace, prepared, chosen)
    experiments = {loss: choice.experiment for loss, choice in choices.items()}
    key = fingerprint(
        STAGE_VERSION,
        prepared.manifest.fingerprint,
        [experiment.model_dump(mode="json") for experiment in experiments.values()],
        config.compare.model_dump(mode="json"),
        config.scaling.num_workers,
    )

    def work() -> None:
        ensure_ray(config)
        tasks = list(_tasks(config, prepared, experiments))
        where = workspace.run / "ray" / "compare"
        where.delete()
        with epoch_lines() as lines:
            results, kept = train_tasks(tasks, Resources.of(config), where, [lines])
        copy_checkpoint(kept, PREDICTIONS, folder)
        entries = (*_baselines(prepared, folder), *_by_loss(choices, results))
        targets = [e.time_decay.apply_to == "target" for e in experiments.values()]
        scale = "decayed" if all(targets) else "stars"
        file.write_json(asdict(_assessed(config, prepared, entries, scale, folder)))
        where.delete()  # all of it is in the comparison and the predictions

    workspace.stage("compare", key, [file, folder], work)
    comparison = Comparison.from_json(file.read_json())
    show(table(comparison))
    if comparison.assessment.differences:
        show(differences_table(comparison))
    return comparison


def _choices(workspace: Workspace, prepared: Prepared, chosen: Chosen) -> dict[LossName, Chosen]:
    """The configuration of each loss: the chosen one, or the winner of the loss's own search."""
    compare = workspace.config.compare
    if compare.trials_per_loss:
        return {loss: search(workspace, prepared, loss) for loss in compare.losses}
    return {
        loss: replace(chosen, experiment=with_parameters(chosen.experiment, {"train.loss": loss}))
        for loss in compare.losses
    }


def _assessed(
    config: JobConfig,
    prepared: Prepared,
    entries: tuple[Entry, ...],
    scale: str,
    folder: Storage,
) -> Comparison:
    """The comparison, with what the predictions in ``folder`` tell about the models."""
    models = [entry for entry in entries if not entry.is_baseline]
    # Without validation rows the first loss is looked at: test rows must not choose among models.
    model = _best(models, scale) if models[0].validation else models[0]
    baseline = _best([entry for entry in entries if entry.is_baseline], scale)
    against_baseline = [(entry.name, baseline.name) for entry in models]
    between_losses = combinations([entry.name for entry in models], 2)
    return Comparison(
        entries=entries,
        scale=scale,
        num_test=prepared.manifest.counts["test"],
        trials_per_loss=config.compare.trials_per_loss,
        model=model.name,
        baseline=baseline.name,
        assessment=assess(
            _test_rows(prepared, scale),
            ((entry.name, _predictions(entry, scale, folder)) for entry in entries),
            [*against_baseline, *between_losses],
            [model.name, baseline.name],
            config.compare.resamples,
        ),
    )


def _best(entries: Sequence[Entry], scale: str) -> Entry:
    """The lowest RMSE on the validation rows; without any, on the test rows.

    Among baselines that is no sin: it can only raise the bar for the models.
    """
    return min(entries, key=lambda entry: entry.figure("rmse", scale, validation=True)[0])


def _test_rows(prepared: Prepared, scale: str) -> Rows:
    train, test = prepared.rows("train"), prepared.rows("test")
    assert train is not None
    assert test is not None
    weights = test.weights if scale == "decayed" else 1.0
    return Rows(
        users=prepared.table("test", ["user_id"])["user_id"].to_numpy(),
        actual=(test.ratings * weights).numpy(),
        slicings=slicings(train, test, prepared.fitted),
    )


def _predictions(entry: Entry, scale: str, folder: Storage) -> npt.NDArray[np.float32]:
    """``[S, N]`` predictions for the test rows, of each seed."""
    tables = ((folder / name).read_table() for name in entry.predictions)
    return np.stack([Predictions.from_arrow(table).on(scale) for table in tables])


def table(comparison: Comparison) -> Table:
    """The comparison for the console."""
    scale = "rating in stars" if comparison.scale == "stars" else "rating x decay weight"
    result = Table(title=f"Test errors, {scale}, {comparison.num_test:,} rows")
    for column in ("model", "seeds", "RMSE", "MAE", "R²"):
        result.add_column(column, justify="left" if column == "model" else "right")
    for entry in comparison.entries:
        figures = [shown(*entry.figure(metric, comparison.scale)) for metric in METRICS]
        result.add_row(entry.name, str(len(entry.test)), *figures)
    return result


def differences_table(comparison: Comparison) -> Table:
    """The differences of the RMSE for the console; those of the MAE are in the report."""
    result = Table(title="Differences of the RMSE; intervals and p corrected for their number")
    for column in DIFFERENCE_COLUMNS:
        result.add_column(column, justify="left" if column == DIFFERENCE_COLUMNS[0] else "right")
    for difference in comparison.assessment.differences:
        if difference.metric == "rmse":
            result.add_row(*difference_cells(difference))
    return result


DIFFERENCE_COLUMNS = ("first − second", "difference", "95 % interval", "p", "better")


def difference_cells(difference: Difference) -> tuple[str, ...]:
    """One difference as the cells of a table's row."""
    return (
        f"{difference.first} − {difference.second}",
        f"{difference.value:+.4f}",
        f"{difference.corrected_low:+.4f} to {difference.corrected_high:+.4f}",
        f"{difference.holm_p:.4f}",
        difference.better or "undecided",
    )


def shown(value: float, spread: float | None) -> str:
    """A figure with its spread over seeds."""
    return f"{value:.4f}" if spread is None else f"{value:.4f} ± {spread:.4f}"


def _tasks(
    config: JobConfig, prepared: Prepared, experiments: dict[LossName, ExperimentConfig]
) -> Iterator[TrainingTask]:
    for loss, experiment in experiments.items():
        for seed in config.compare.seeds:
            yield TrainingTask(
                f"{loss} seed {seed}",
                prepared,
                with_parameters(experiment, {"train.seed": seed}),
                score_test=True,
                keep_predictions=True,
            )


def _by_loss(choices: dict[LossName, Chosen], results: list[TaskResult]) -> Iterator[Entry]:
    for loss, choice in choices.items():
        of_loss = [r for r in results if r.name.startswith(f"{loss} ")]
        yield Entry(
            name=f"NCF, {loss}",
            detail=_detail(choice, of_loss),
            test=tuple(r.test for r in of_loss if r.test),
            validation=tuple(r.validation for r in of_loss if r.validation),
            best_epochs=tuple(r.best_epoch for r in of_loss),
            curves=tuple(tuple(r.epochs) for r in of_loss),
            predictions=tuple(r.predictions for r in of_loss if r.predictions),
        )


def _detail(choice: Chosen, results: Sequence[TaskResult]) -> str:
    """Seeds, and what a search chose."""
    settings = {key: value for key, value in choice.parameters.items() if key != LOSS}
    parts = [f"seeds {', '.join(str(result.seed) for result in results)}"]
    parts += [
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}"
        for key, value in settings.items()
    ]
    return "; ".join(parts)


def _baselines(prepared: Prepared, folder: Storage) -> Iterator[Entry]:
    """Every baseline, with its predictions for the test rows written into ``folder``."""
    train, validation, test = (prepared.rows(s) for s in ("train", "validation", "test"))
    assert train is not None
    assert test is not None
    fitted = prepared.fitted
    for baseline in baselines.all_baselines(train, validation, fitted):
        yield Entry(
            name=baseline.name,
            detail=baseline.detail,
            test=(baseline.score(test, fitted).as_dict(),),
            validation=(baseline.score(validation, fitted).as_dict(),) if validation else (),
            predictions=(_write_predictions(baseline, prepared, test, folder),),
        )


def _write_predictions(baseline: Baseline, prepared: Prepared, test: Batch, folder: Storage) -> str:
    """Predictions as the scores take them: clipped as the models' are; returns the file's name."""
    fitted = prepared.fitted
    stars = baseline.predict(test).clamp(fitted.rating_min, fitted.rating_max).float()
    found = Predictions(stars.numpy(), (stars * test.weights).numpy())
    rows = prepared.table("test", ["row"])["row"].to_numpy()
    name = predictions_file(baseline.name)
    (folder / name).write_table(found.to_arrow(rows))
    return name


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """The stages up to this one."""
    workspace = Workspace(config, options.force)
    workspace.open()
    with ray_session(config):
        prepared = preprocess(workspace, ingest(workspace))
        compare(workspace, prepared, search(workspace, prepared))


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
