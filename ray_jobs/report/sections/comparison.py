"""Errors of models and baselines, and the significance of their differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ncf.evaluation.significance import Difference
from ray_jobs.report import plots
from ray_jobs.report.document import Block, DataTable, Heading, Plot, ReportSection, Text
from ray_jobs.results.comparison import (
    DIFFERENCE_COLUMNS,
    METRICS,
    Comparison,
    ModelResult,
    difference_cells,
    shown,
    shown_budget,
)


def comparison_section(comparison: Comparison) -> ReportSection:
    """Errors of all models, how each was fitted, and learning curves."""
    return ReportSection(
        f"Comparison of {'models' if comparison.fixed else 'losses'} and baselines",
        (
            Text(_rows(comparison)),
            _errors_table(comparison, comparison.scale),
            _errors_plot(comparison),
            *_validation_errors(comparison),
            Text(_training(comparison)),
            Text(_settings(comparison)),
            DataTable(
                "How each was fitted",
                ("model", "settings"),
                tuple((e.name, e.detail) for e in comparison.entries),
                words=(0, 1),
            ),
            *_other_scale(comparison),
            *_learning_curves(comparison),
        ),
    )


def _rows(comparison: Comparison) -> str:
    figures = "mean ± standard deviation over seeds of the training"
    if comparison.scored == "test":
        return f"Test errors on {comparison.num_test:,} rows; {figures}."
    return (
        f"Errors on {comparison.num_validation:,} validation rows; {figures}. No test row was "
        "read: this comparison is for choosing settings. Epochs may have been chosen on the same "
        "rows, so expect higher errors on the test rows."
    )


def _training(comparison: Comparison) -> str:
    if comparison.refitted:
        return (
            "The scored models were trained, or fitted, again on training and validation rows "
            "together, with the best number of epochs and the best settings."
        )
    return "The scored models were trained on the training rows only."


def _settings(comparison: Comparison) -> str:
    if comparison.fixed:
        return (
            "Each model has a fixed configuration; this comparison searched for the settings of "
            "baselines, and of trees that correct models. The column 'tried' counts them."
        )
    if comparison.trials_per_loss:
        return (
            "Each loss has the best settings of its own search, "
            f"{comparison.trials_per_loss} trials each."
        )
    return (
        "All losses have the same settings. If a search chose them, they suit the loss of its best "
        "trial most (compare.trials_per_loss gives each loss its own search)."
    )


def _errors_table(comparison: Comparison, scale: str) -> DataTable:
    def row(entry: ModelResult) -> tuple[str, ...]:
        figures = (shown(*comparison.figure(entry, metric, scale)) for metric in METRICS)
        return (entry.name, shown_budget(entry), str(comparison.num_seeds(entry)), *figures)

    unit = "stars" if scale == "stars" else "rating × decay weight"
    # Python sorts by comparing, and NaN compares with nothing.
    errors = {e.name: comparison.figure(e, "rmse", scale)[0] for e in comparison.entries}
    ordered = sorted(comparison.entries, key=lambda e: (math.isnan(errors[e.name]), errors[e.name]))
    return DataTable(
        f"{comparison.scored.capitalize()} errors in {unit}; models of this program are in bold",
        ("model", "tried", "seeds", "RMSE", "MAE", "R²"),
        tuple(row(e) for e in ordered),
        marked=tuple(i for i, e in enumerate(ordered) if e.kind not in ("baseline", "given")),
    )


def _errors_plot(comparison: Comparison) -> Plot:
    values = {e.name: comparison.figure(e, "rmse") for e in comparison.entries}
    described = "; ".join(f"{name} {shown(*value)}" for name, value in values.items())
    metric = f"{comparison.scored} RMSE"
    return Plot(
        "comparison",
        f"{comparison.scored.capitalize()} RMSE of every baseline and model; the line is one "
        "standard deviation over seeds to each side.",
        f"Dots for the {metric} of each model: {described}",
        plots.dots(values, metric),
    )


def _validation_errors(comparison: Comparison) -> Iterator[DataTable]:
    """What fixed configurations were chosen by, beside their test errors."""
    entries = [e for e in comparison.entries if e.validation]
    if comparison.fixed and comparison.scored == "test" and entries:
        rows = (
            tuple(shown(*e.figure(metric, comparison.scale, validation=True)) for metric in METRICS)
            for e in entries
        )
        yield DataTable(
            "Validation errors, of models trained on the training rows alone",
            ("model", "RMSE", "MAE", "R²"),
            tuple((e.name, *figures) for e, figures in zip(entries, rows, strict=True)),
        )


def _other_scale(comparison: Comparison) -> Iterator[Block]:
    """The errors on the scale that the models were not trained on."""
    if comparison.scored == "validation":
        return  # the weights of validation rows may differ between configurations
    original = comparison.scale == "decayed"
    yield Heading("In stars" if original else "On the scale rating × decay weight")
    yield Text(
        "On the scale rating × decay weight, the original work's, most of the variance is due to "
        "the age of the rating, which is known for every row: the global mean alone has a high R². "
        "Errors on this scale say little about taste."
    )
    yield _errors_table(comparison, "stars" if original else "decayed")


def _learning_curves(comparison: Comparison) -> Iterator[Heading | Plot]:
    name = "validation_rmse" if comparison.scale == "stars" else "validation_decayed_rmse"
    curves = {
        e.name: [[epoch[name] for epoch in run] for run in e.curves]
        for e in comparison.entries
        if e.curves and name in e.curves[0][0]
    }
    if curves:
        described = "; ".join(
            f"{model} from {runs[0][0]:.4f} to {runs[0][-1]:.4f} in {len(runs[0])} epochs"
            for model, runs in curves.items()
        )
        yield Heading("Learning curves")
        yield Plot(
            "learning_curves",
            "Validation RMSE after each epoch, a line for each seed.",
            f"Lines of the validation RMSE over epochs. With the first seed, {described}",
            plots.learning_curves(curves, "validation RMSE"),
        )


def differences_section(comparison: Comparison) -> ReportSection:
    """Differences between models with intervals, and a conclusion."""
    differences = comparison.assessment.differences
    blocks = differences_blocks(differences, comparison.entries, comparison.assessment.num_users)
    return ReportSection("Significance of differences", (*blocks, Text(_compared_with(comparison))))


def _compared_with(comparison: Comparison) -> str:
    if comparison.named_differences:
        return "The differences are those that the configuration names."
    if comparison.against:
        return f"All others are compared with {' and with '.join(comparison.against)}."
    return (
        f"The baseline, {comparison.baseline}, is the one that is best on the validation rows, if "
        "there are any."
    )


def differences_blocks(
    differences: Sequence[Difference], entries: Sequence[ModelResult], num_users: int
) -> Iterator[Block]:
    """A conclusion, the differences as a plot and as tables, and the method.

    Args:
        differences: of RMSE and MAE of one family; empty if nothing could be compared.
        entries: the compared models, and possibly others.
        num_users: users with test rows.
    """
    yield Text(_verdict(differences))
    if not differences:
        return
    yield _differences_plot(differences)
    for metric in ("rmse", "mae"):
        yield DataTable(
            f"Differences of the test {metric.upper()}",
            DIFFERENCE_COLUMNS,
            tuple(difference_cells(d) for d in differences if d.metric == metric),
            words=(0, len(DIFFERENCE_COLUMNS) - 1),
        )
    yield Text(_how(len(differences), entries, num_users))


def _how(num_comparisons: int, entries: Sequence[ModelResult], num_users: int) -> str:
    several_seeds = any(len(entry.test) > 1 for entry in entries)
    return (
        f"A paired bootstrap: the {num_users:,} users of the test rows are "
        "drawn with replacement, the same ones for all models"
        + (
            "; the variation between training seeds is included, with a standard deviation "
            "estimated from all of the compared models together. "
            if several_seeds
            else ". With one training seed each, the variation between seeds is unknown and not "
            "included. "
        )
        + (
            "A mean of seeds counts as one model: the variation between means of other seeds is "
            "not included. "
            if any(entry.kind == "ensemble" for entry in entries)
            else ""
        )
        + f"The 95 % intervals are corrected for all {num_comparisons} comparisons at once "
        "(Bonferroni), RMSE and MAE counted separately; p is corrected for as many by Holm's "
        "method. A model is called better only if both agree."
    )


def _differences_plot(differences: Sequence[Difference]) -> Plot:
    rmse = {f"{d.first} − {d.second}": d for d in differences if d.metric == "rmse"}
    described = "; ".join(
        f"{name} {d.value:+.4f} ({d.corrected_low:+.4f} to {d.corrected_high:+.4f})"
        for name, d in rmse.items()
    )
    return Plot(
        "differences",
        "Differences of the test RMSE with their intervals; grey where the interval includes 0.",
        f"Dots with intervals for differences of the test RMSE: {described}",
        plots.intervals(
            {name: (d.value, d.corrected_low, d.corrected_high) for name, d in rmse.items()},
            "difference of the test RMSE",
        ),
    )


def _verdict(differences: Sequence[Difference]) -> str:
    """The conclusion in a sentence."""
    if not differences:
        return "The test rows have only one user, so differences cannot be tested."
    metrics: dict[tuple[str, str], list[str]] = {}
    for d in differences:
        if d.better:
            metrics.setdefault((d.better, _other(d)), []).append(d.metric.upper())
    significant = [
        f"{better} has a lower {' and '.join(names)} than {other}"
        for (better, other), names in metrics.items()
    ]
    undecided = sum(not d.better for d in differences)
    return ("; ".join(significant) if significant else "No difference is significant") + (
        f"; {undecided} of {len(differences)} comparisons are undecided." if undecided else "."
    )


def _other(difference: Difference) -> str:
    return difference.second if difference.better == difference.first else difference.first
