"""Make the comparison on each of several splits, and a table of all.

For published folds, such as u1 to u5 of ml-100k: ``folds.files`` names the files of each. Every
fold is a run of its own, ``runs/<name>.<fold>``, with a search of its own on validation rows that
are drawn from its training rows; so its test rows have no part in what is scored on them.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Final

from rich.table import Table

from ingest.errors import ConfigError
from ncf.report import DataTable, Report, ReportSection, Text
from ray_jobs import preflight
from ray_jobs.compare import compare
from ray_jobs.comparison import METRICS, Comparison
from ray_jobs.config import JobConfig
from ray_jobs.console import say, show
from ray_jobs.preprocess import ingest, preprocess
from ray_jobs.runtime import main
from ray_jobs.tune import search
from ray_jobs.workspace import Workspace

EXAMPLES: Final = (
    "--config configs/ml-100k.toml --set data.path=FOLDER",
    "--config configs/ml-100k.toml --set model.history.use_times=false",
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
    scale = next(iter(comparisons.values())).scale
    names = [name for name in folds[0] if all(name in fold for fold in folds)]
    return tuple(
        FoldErrors(
            name,
            *(tuple(fold[name].figure(metric, scale)[0] for fold in folds) for metric in METRICS),
        )
        for name in names
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
        "files": config.folds.files[fold],
        "validation": config.split.validation,
        "seed": config.split.seed,
    }
    values = config.model_dump() | {"name": f"{config.name}.{fold}", "split": split}
    return JobConfig.model_validate(values)


def _compare(config: JobConfig, force: bool) -> Comparison:
    workspace = Workspace(config, force)
    workspace.open()
    raw = ingest(workspace)
    prepared = preprocess(workspace, raw)
    return compare(workspace, raw, prepared, search(workspace, prepared))


def _write(config: JobConfig, folds: tuple[str, ...], errors: tuple[FoldErrors, ...]) -> None:
    folder = Workspace(config).run
    tables = tuple(fold_table(folds, errors, metric) for metric in METRICS)
    report = Report(
        title=f"{len(folds)} folds of {config.data.source}: run {config.name}",
        warnings=(),
        key_figures=(),
        sections=(
            ReportSection(
                "Test errors of each fold",
                (
                    Text(
                        "Each figure is the mean over training seeds; the last column is the mean "
                        "over folds, and their standard deviation. Folds share training rows, so "
                        "that deviation says how different they are, and is no error of the mean."
                    ),
                    *tables,
                ),
            ),
        ),
    )
    (folder / "folds.json").write_json({"folds": folds, "models": [asdict(e) for e in errors]})
    (folder / "report.md").write_text(report.markdown("plots"))
    (folder / "report.html").write_text(report.html())
    show(_console(tables[0]))
    say(f"report: {folder / 'report.html'}")


def _console(table: DataTable) -> Table:
    result = Table(title="Test errors of each fold")
    for number, column in enumerate(table.header):
        result.add_column(column, justify="right" if number else "left")
    for row in table.rows:
        result.add_row(*row)
    return result


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Every fold, one after the other, and the table."""
    if not config.folds.files:
        raise ConfigError(
            "folds.files names no fold. Give each one's files, as configs/ml-100k.toml does: "
            '--set \'folds.files={a={train=["a.train"], test=["a.test"]}}\''
        )
    with preflight.job(Workspace(config, options.force)):
        found = {
            fold: _compare(fold_config(config, fold), options.force) for fold in config.folds.files
        }
        _write(config, tuple(found), of_folds(found))


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run, examples=EXAMPLES))
