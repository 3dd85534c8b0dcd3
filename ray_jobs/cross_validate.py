"""Make the comparison on each of several splits, and a table and a comparison over all.

For published folds, such as u1 to u5 of ml-100k: ``cross_validate.folds`` names the files of each.
Every fold is a run of its own, ``runs/<name>.<fold>``, with a search of its own on validation rows
that are drawn from its training rows, so that no choice depends on the test rows."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any, Final

from rich.table import Table

from foundation.console import show
from foundation.errors import ConfigError
from ray_jobs.cli import main
from ray_jobs.cluster import preflight
from ray_jobs.compare import compare, scored
from ray_jobs.config import JobConfig
from ray_jobs.report.document import DataTable, Report, ReportSection, Text
from ray_jobs.report.sections.comparison import differences_blocks
from ray_jobs.report.writing import write
from ray_jobs.results.across_folds import (
    COLUMNS,
    AcrossFolds,
    Fold,
    in_all,
    missing,
    pool,
    scale_of,
)
from ray_jobs.results.comparison import METRICS, Comparison, differences_table
from ray_jobs.results.run import Workspace
from ray_jobs.stages import Stages

logger = logging.getLogger(__name__)

EXAMPLES: Final = (
    "--config configs/protocols/ml-100k.toml --set data.path=FOLDER",
    "--config configs/protocols/ml-100k.toml --set model.history.use_times=false",
)


@dataclass(frozen=True)
class FoldErrors:
    """One model's test errors on every fold, each the mean over its seeds."""

    model: str
    rmse: tuple[float, ...]
    mae: tuple[float, ...]
    r2: tuple[float, ...]

    def of(self, metric: str) -> tuple[float, ...]:
        """The errors of one metric, fold by fold."""
        values: tuple[float, ...] = getattr(self, metric)
        return values


def of_folds(comparisons: dict[str, Comparison]) -> tuple[FoldErrors, ...]:
    """The errors of every model that all folds have, in the first one's order."""
    folds = [{entry.name: entry for entry in c.entries} for c in comparisons.values()]
    compared = list(comparisons.values())
    scale = scale_of(compared)
    return tuple(
        FoldErrors(
            name,
            *(tuple(fold[name].figure(metric, scale)[0] for fold in folds) for metric in METRICS),
        )
        for name in (entry.name for entry in in_all(compared))
    )


def fold_table(folds: tuple[str, ...], errors: tuple[FoldErrors, ...], metric: str) -> DataTable:
    """One metric: a row for each model, a column for each fold, mean and standard deviation."""
    rows = []
    for model in errors:
        values = model.of(metric)
        spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        figures = (f"{value:.4f}" for value in values)
        rows.append((model.model, *figures, f"{mean(values):.4f}{spread}"))
    name = metric.upper().replace("R2", "R²")
    return DataTable(f"{name} of each fold", (name, *folds, "mean"), tuple(rows))


def fold_config(config: JobConfig, fold: str) -> JobConfig:
    """The configuration of one fold's run."""
    split = {
        "kind": "files",
        "files": config.cross_validate.folds[fold],
        "validation": config.split.validation,
        "seed": config.split.seed,
    }
    values = config.model_dump() | {"name": f"{config.name}.{fold}", "split": split}
    return JobConfig.model_validate(values)


def _compare(config: JobConfig, force: bool) -> Fold:
    workspace = Workspace(config, force)
    workspace.open()
    stages = Stages(workspace)
    comparison = compare(workspace, stages.raw, stages.prepared, stages.best_trial)
    # Without force: read the rows that were compared instead of preparing them again.
    rows = scored(Workspace(config), stages.raw, stages.prepared).table("test", list(COLUMNS))
    return Fold(comparison, rows, workspace.paths.predictions)


@dataclass(frozen=True)
class Summary:
    """The results over all folds."""

    folds: dict[str, Comparison]
    errors: tuple[FoldErrors, ...]
    """Of the models that all folds have."""
    missing: dict[str, tuple[str, ...]]
    """Models that only some folds have, each with the folds that lack it."""
    pooled: AcrossFolds

    @classmethod
    def of(cls, folds: dict[str, Fold], num_resamples: int) -> Summary:
        """Look at what was compared on each fold."""
        comparisons = {name: fold.comparison for name, fold in folds.items()}
        return cls(
            comparisons,
            of_folds(comparisons),
            missing(comparisons),
            pool(list(folds.values()), num_resamples),
        )

    def to_json(self) -> dict[str, Any]:
        """The content of ``folds.json``."""
        return {
            "folds": tuple(self.folds),
            "models": [asdict(errors) for errors in self.errors],
            "missing": self.missing,
            "pooled": asdict(self.pooled),
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is left out of tables and comparison, a sentence each."""
        return tuple(
            f"{model} is left out: it is missing in {', '.join(folds)}"
            for model, folds in self.missing.items()
        )


def _errors_section(summary: Summary) -> ReportSection:
    folds = tuple(summary.folds)
    return ReportSection(
        "Test errors of each fold",
        (
            Text(
                "Each figure is the mean over training seeds; the last column is the mean "
                "over folds, and their standard deviation. Folds share training rows, so "
                "that deviation says how different they are, and is no error of the mean."
            ),
            *(fold_table(folds, summary.errors, metric) for metric in METRICS),
        ),
    )


def _differences_section(summary: Summary) -> ReportSection:
    pooled = summary.pooled
    repeated = (
        f" Of them {pooled.num_repeated:,} are test rows of another fold too, and count once for "
        "each."
        if pooled.num_repeated
        else ""
    )
    entries = in_all(list(summary.folds.values()))
    return ReportSection(
        "Which differences are more than chance, over all folds",
        (
            Text(
                f"All {pooled.num_rows:,} test rows of all folds together, each predicted by the "
                f"models of its fold.{repeated} So the RMSE is that of all rows, which is not the "
                "mean of the folds' RMSEs."
            ),
            *differences_blocks(pooled.differences, entries, pooled.num_users),
            Text(
                "A user who is drawn brings the rows of all folds along. What other training rows "
                "would have given is not accounted for: folds share most of theirs. The baseline, "
                f"{pooled.baseline}, is the one with the lowest mean over folds of the RMSE on the "
                "validation rows, if there are any."
            ),
        ),
    )


def _write(config: JobConfig, summary: Summary) -> None:
    paths = Workspace(config).paths
    report = Report(
        title=f"{len(summary.folds)} folds of {config.data.source}: run {config.name}",
        warnings=summary.warnings,
        key_figures=(),
        sections=(_errors_section(summary), _differences_section(summary)),
    )
    paths.folds.write_json(summary.to_json())
    write(report, paths)
    show(_console(fold_table(tuple(summary.folds), summary.errors, METRICS[0])))
    if summary.pooled.differences:
        show(differences_table(summary.pooled.differences))
    for warning in summary.warnings:
        logger.info(f"   note: {warning}")
    logger.info(f"report: {paths.report_html}")


def _console(table: DataTable) -> Table:
    result = Table(title="Test errors of each fold")
    for number, column in enumerate(table.header):
        result.add_column(column, justify="right" if number else "left")
    for row in table.rows:
        result.add_row(*row)
    return result


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Compare the models on every fold, one after the other, and summarise."""
    if not config.cross_validate.folds:
        raise ConfigError(
            "cross_validate.folds names no fold. Give each one's files, as "
            "configs/datasets/ml-100k.toml does: "
            '--set \'cross_validate.folds={a={train=["a.train"], test=["a.test"]}}\''
        )
    with preflight.job(Workspace(config, options.force)):
        folds = {
            fold: _compare(fold_config(config, fold), options.force)
            for fold in config.cross_validate.folds
        }
        _write(config, Summary.of(folds, config.compare.resamples))


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run, examples=EXAMPLES))
