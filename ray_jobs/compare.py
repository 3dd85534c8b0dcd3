"""Each loss, several seeds, beside the baselines. ``python -m ray_jobs.compare --help``.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows. Loss functions are compared on the same scales, so that none is
judged by its own yardstick.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from pydantic import TypeAdapter
from rich.table import Table

from ncf import baselines
from ncf.prepared import Prepared
from ray_jobs.cluster import Resources, ensure_ray, ray_session
from ray_jobs.config import JobConfig, with_parameters
from ray_jobs.console import show
from ray_jobs.preprocess import ingest, preprocess
from ray_jobs.progress import epoch_lines
from ray_jobs.runtime import main
from ray_jobs.tune import Chosen, search
from ray_jobs.worker import TaskResult, TrainingTask, train_tasks
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

    def figure(self, metric: str, scale: str) -> tuple[float, float | None]:
        """Mean over seeds of a test metric, and its standard deviation if there are several.

        ``scale`` is ``stars`` or ``decayed``.
        """
        values = [t["decayed"][metric] if scale == "decayed" else t[metric] for t in self.test]
        return mean(values), stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """Losses and baselines on the same test rows."""

    entries: tuple[Entry, ...]
    scale: str
    """The scale that the models were trained on: ``stars``, or ``decayed`` in the original mode."""
    num_test: int

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Comparison:
        """Read what ``compare`` wrote."""
        return TypeAdapter(cls).validate_python(values)


def compare(workspace: Workspace, prepared: Prepared, chosen: Chosen) -> Comparison:
    """Train every loss with every seed in one worker group, and score them with the baselines."""
    config = workspace.config
    file = workspace.run / "comparison.json"
    key = fingerprint(
        STAGE_VERSION,
        prepared.manifest.fingerprint,
        chosen.experiment.model_dump(mode="json"),
        config.compare.model_dump(mode="json"),
        config.scaling.num_workers,
    )

    def work() -> None:
        ensure_ray(config)
        tasks = list(_tasks(config, prepared, chosen))
        where = workspace.run / "ray" / "compare"
        where.delete()
        with epoch_lines() as lines:
            results, _ = train_tasks(tasks, Resources.of(config), where, [lines])
        comparison = Comparison(
            entries=(*_baselines(prepared), *_by_loss(config, results)),
            scale="decayed" if chosen.experiment.time_decay.apply_to == "target" else "stars",
            num_test=prepared.manifest.counts["test"],
        )
        file.write_json(asdict(comparison))
        where.delete()  # all of it is in the comparison

    workspace.stage("compare", key, [file], work)
    comparison = Comparison.from_json(file.read_json())
    show(table(comparison))
    return comparison


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


def shown(value: float, spread: float | None) -> str:
    """A figure with its spread over seeds."""
    return f"{value:.4f}" if spread is None else f"{value:.4f} ± {spread:.4f}"


def _tasks(config: JobConfig, prepared: Prepared, chosen: Chosen) -> Iterator[TrainingTask]:
    for loss in config.compare.losses:
        for seed in config.compare.seeds:
            changes = {"train.loss": loss, "train.seed": seed}
            experiment = with_parameters(chosen.experiment, changes)
            yield TrainingTask(f"{loss} seed {seed}", prepared, experiment, score_test=True)


def _by_loss(config: JobConfig, results: list[TaskResult]) -> Iterator[Entry]:
    for loss in config.compare.losses:
        of_loss = [r for r in results if r.name.startswith(f"{loss} ")]
        yield Entry(
            name=f"NCF, {loss}",
            detail=f"seeds {', '.join(str(r.seed) for r in of_loss)}",
            test=tuple(r.test for r in of_loss if r.test),
            validation=tuple(r.validation for r in of_loss if r.validation),
            best_epochs=tuple(r.best_epoch for r in of_loss),
            curves=tuple(tuple(r.epochs) for r in of_loss),
        )


def _baselines(prepared: Prepared) -> Iterator[Entry]:
    train, validation, test = (prepared.rows(s) for s in ("train", "validation", "test"))
    assert train is not None
    assert test is not None
    fitted = prepared.fitted
    for baseline in (
        baselines.global_mean(train, fitted),
        baselines.tuned_damped_bias(train, validation, fitted),
    ):
        yield Entry(
            name=baseline.name,
            detail=baseline.detail,
            test=(baseline.score(test, fitted).as_dict(),),
            validation=(baseline.score(validation, fitted).as_dict(),) if validation else (),
        )


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """The stages up to this one."""
    workspace = Workspace(config, options.force)
    workspace.open()
    with ray_session(config):
        prepared = preprocess(workspace, ingest(workspace))
        compare(workspace, prepared, search(workspace, prepared))


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
