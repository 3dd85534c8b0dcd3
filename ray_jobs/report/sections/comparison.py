"""Models and baselines beside each other, and which differences are more than chance."""

from __future__ import annotations

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
            "What is scored was trained, or fitted, again on training and validation rows "
            "together, for the number of epochs and with the settings that were best before."
        )
    return "What is scored was trained on the training rows alone."


def _settings(comparison: Comparison) -> str:
    if comparison.fixed:
        return "Each model has a fixed configuration; this comparison searched for nothing."
    if comparison.trials_per_loss:
        return (
            "Each loss runs with the settings of a search of its own, "
            f"{comparison.trials_per_loss} trials each."
        )
    return (
        "All losses run with the same settings: if a search chose them, they suit the loss of its "
        "winner best (compare.trials_per_loss gives each loss a search of its own)."
    )


def _errors_table(comparison: Comparison, scale: str) -> DataTable:
    def row(entry: ModelResult) -> tuple[str, ...]:
        figures = (shown(*comparison.figure(entry, metric, scale)) for metric in METRICS)
        return (entry.name, str(comparison.num_seeds(entry)), *figures)

    unit = "stars" if scale == "stars" else "rating × decay weight"
    return DataTable(
        f"{comparison.scored.capitalize()} errors in {unit}",
        ("model", "seeds", "RMSE", "MAE", "R²"),
        tuple(row(e) for e in comparison.entries),
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
        "On the scale rating × decay weight, the original work's, most of the variance is "
        "the age of the rating, which every row here knows: the global mean alone has a "
        "high R² there. It says little about taste."
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
    """Differences between models with intervals, and what may be said of them."""
    differences = comparison.assessment.differences
    blocks = differences_blocks(differences, comparison.entries, comparison.assessment.num_users)
    return ReportSection(
        "Which differences are more than chance", (*blocks, Text(_compared_with(comparison)))
    )


def _compared_with(comparison: Comparison) -> str:
    if comparison.against:
        return f"All others are compared with {' and with '.join(comparison.against)}."
    return (
        f"The baseline, {comparison.baseline}, is the one that is best on the validation rows, if "
        "there are any."
    )


def differences_blocks(
    differences: Sequence[Difference], entries: Sequence[ModelResult], num_users: int
) -> Iterator[Block]:
    """What may be said, the differences as a picture and as tables, and how they were made.

    Args:
        differences: of RMSE and MAE of one family; empty if nothing could be compared.
        entries: what was compared, and possibly more.
        num_users: that were drawn from.
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
            "; what other training seeds might have given comes on top, with a spread that is "
            "estimated from all of the compared models together. "
            if several_seeds
            else ". With one training seed each, what other seeds would have given is unknown and "
            "not accounted for. "
        )
        + (
            "The mean of seeds counts as the one model that it is: what the mean of other seeds "
            "would have given is not accounted for. "
            if any(entry.kind == "ensemble" for entry in entries)
            else ""
        )
        + f"The intervals hold with 95 % for all {num_comparisons} comparisons at once "
        "(Bonferroni), RMSE and MAE counted one by one; p is corrected for as many by Holm's "
        "method. A model is called better only if both say so."
    )


def _differences_plot(differences: Sequence[Difference]) -> Plot:
    rmse = {f"{d.first} − {d.second}": d for d in differences if d.metric == "rmse"}
    described = "; ".join(
        f"{name} {d.value:+.4f} ({d.corrected_low:+.4f} to {d.corrected_high:+.4f})"
        for name, d in rmse.items()
    )
    return Plot(
        "differences",
        "Differences of the test RMSE with their intervals; grey where the interval holds 0, which "
        "is no difference.",
        f"Dots with intervals for differences of the test RMSE: {described}",
        plots.intervals(
            {name: (d.value, d.corrected_low, d.corrected_high) for name, d in rmse.items()},
            "difference of the test RMSE",
        ),
    )


def _verdict(differences: Sequence[Difference]) -> str:
    """What may be said, in a sentence."""
    if not differences:
        return "There is one user alone in the test rows: nothing can be said."
    metrics: dict[tuple[str, str], list[str]] = {}
    for d in differences:
        if d.better:
            metrics.setdefault((d.better, _other(d)), []).append(d.metric.upper())
    sure = [
        f"{better} has a lower {' and '.join(names)} than {other}"
        for (better, other), names in metrics.items()
    ]
    undecided = sum(not d.better for d in differences)
    return ("; ".join(sure) if sure else "No difference is more than chance may have made") + (
        f"; {undecided} of {len(differences)} comparisons are undecided." if undecided else "."
    )


def _other(difference: Difference) -> str:
    return difference.second if difference.better == difference.first else difference.first
