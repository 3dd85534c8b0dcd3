"""The report of a cross-validation: the errors of each fold, and the differences over all."""

from __future__ import annotations

import logging

from rich.table import Table

from foundation.console import show
from foundation.errors import ConfigError
from ray_jobs.cluster import preflight
from ray_jobs.config import JobConfig
from ray_jobs.configurations import require_test_errors
from ray_jobs.redo import Redo
from ray_jobs.report import plots
from ray_jobs.report.document import DataTable, Plot, Report, ReportSection, Text
from ray_jobs.report.sections.comparison import differences_blocks
from ray_jobs.report.writing import write
from ray_jobs.results import undefined
from ray_jobs.results.across_folds import AcrossFolds, in_all
from ray_jobs.results.comparison import METRICS, differences_table, shown
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.run import Workspace
from ray_jobs.stages.cross_validation import FoldErrors, Summary, cross_validate, folds_of

logger = logging.getLogger(__name__)


def run_cross_validation(config: JobConfig, redo: Redo) -> None:
    """Compare the models on every fold, and summarise.

    Raises:
        ConfigError: if no fold is configured, or test rows are not to be scored.
    """
    if not folds_of(config):
        raise ConfigError(
            "cross_validate.folds names no fold. Give each one's files, as "
            "configs/datasets/ml-100k.toml does: "
            '--set \'cross_validate.folds={a={train=["a.train"], test=["a.test"]}}\'; or seeds of '
            "random splits: --set cross_validate.split_seeds=[1,2,3,4,5]"
        )
    require_test_errors(config, "the models of several splits are compared on their test rows")
    if not config.wants_ratings:
        raise ConfigError(
            'rating models are compared on several splits, but task = "choice" has none; set '
            'task = "rating", or compare choice models on one split after the other'
        )
    if config.wants_choices:
        logger.info('note: rating models alone are compared here, as with task = "rating"')
    workspace = Workspace(config, redo)
    with preflight.job(workspace):
        write_folds_report(cross_validate(workspace), config, workspace.paths)


def write_folds_report(summary: Summary, config: JobConfig, paths: RunPaths) -> None:
    """Print the tables of a cross-validation, and write its report into its run's folder."""
    report = Report(
        title=f"{len(summary.folds)} folds of {config.data.source}: run {config.name}",
        warnings=summary.warnings,
        key_figures=(),
        sections=(_errors_section(summary), _differences_section(summary)),
    )
    write(report, paths)
    folds = tuple(summary.folds)
    show(_console("Test errors of each fold", fold_table(folds, summary.errors, METRICS[0])))
    show(_console("Differences of each fold", over_folds_table(folds, summary.pooled)))
    if summary.pooled.differences:
        show(differences_table(summary.pooled.differences))
    for warning in summary.warnings:
        logger.info(f"   note: {warning}")
    logger.info(f"report: {paths.report_html}")


def fold_table(folds: tuple[str, ...], errors: tuple[FoldErrors, ...], metric: str) -> DataTable:
    """One metric: a row for each model, a column for each fold, mean and standard deviation."""
    rows = []
    for model in errors:
        values = model.of(metric)
        figures = (undefined.shown(value) for value in values)
        rows.append((model.model, *figures, shown(*undefined.mean_and_spread(values))))
    name = metric.upper().replace("R2", "R²")
    return DataTable(f"{name} of each fold", (name, *folds, "mean"), tuple(rows))


def over_folds_table(folds: tuple[str, ...], pooled: AcrossFolds) -> DataTable:
    """Differences of the RMSE: a row for each pair, a column for each fold, mean and interval."""
    rows = []
    for pair in pooled.over_folds:
        interval = "" if pair.low is None else f"{pair.low:+.4f} to {pair.high:+.4f}"
        values = (f"{value:+.4f}" for value in (*pair.values, pair.mean))
        rows.append((f"{pair.first} − {pair.second}", *values, interval))
    header = ("first − second", *folds, "mean", "95 % interval")
    return DataTable("Differences of the RMSE, fold by fold", header, tuple(rows))


def _errors_section(summary: Summary) -> ReportSection:
    folds = tuple(summary.folds)
    return ReportSection(
        "Test errors of each fold",
        (
            Text(
                "Each figure is the mean over training seeds; the last column is the mean "
                "over folds, and their standard deviation. Folds share training rows, so "
                "that deviation shows how much folds differ; it is not an error of the mean."
            ),
            _plot(summary),
            *(fold_table(folds, summary.errors, metric) for metric in METRICS),
        ),
    )


def _plot(summary: Summary) -> Plot:
    # Without the mean rating, whose distance would leave little room for the others.
    models = [model for model in summary.errors if model.model != "global mean"] or summary.errors
    found = [(model.model, undefined.mean_and_spread(model.of("rmse"))) for model in models]
    values = dict(sorted(found, key=lambda each: -each[1][0]))
    described = "; ".join(f"{name} {shown(*value)}" for name, value in values.items())
    return Plot(
        "folds",
        "Test RMSE of every model but the mean rating, mean over folds; the line is one standard "
        "deviation over folds to each side.",
        f"Dots for the test RMSE of each model: {described}",
        plots.dots(values, "test RMSE, mean over folds"),
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
    folds = tuple(summary.folds)
    return ReportSection(
        "Significance of differences over all folds",
        (
            Text(
                f"All {pooled.num_rows:,} test rows of all folds together, each predicted by the "
                f"models of its fold.{repeated} So the RMSE is that of all rows, which is not the "
                "mean of the folds' RMSEs."
            ),
            *differences_blocks(pooled.differences, entries, pooled.num_users),
            Text(
                "The bootstrap draws a user with the user's rows of all folds. The variation "
                "between training sets is not included, because folds share most of their rows. "
                f"{_compared_with(pooled)}"
            ),
            over_folds_table(folds, pooled),
            Text(
                "These intervals are of the mean over folds, by the corrected t test of Nadeau and "
                "Bengio for random splits, which includes that variation; they hold for each "
                "difference alone."
            ),
        ),
    )


def _compared_with(pooled: AcrossFolds) -> str:
    if pooled.named_differences:
        return "The differences are those that the configuration names."
    if pooled.against:
        return f"All others are compared with {' and with '.join(pooled.against)}."
    return (
        f"The baseline, {pooled.baseline}, is the one with the lowest mean over folds of the RMSE "
        "on the validation rows, if there are any."
    )


def _console(title: str, table: DataTable) -> Table:
    result = Table(title=title)
    for number, column in enumerate(table.header):
        result.add_column(column, justify="right" if number else "left")
    for row in table.rows:
        result.add_row(*row)
    return result
