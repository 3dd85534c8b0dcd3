"""Errors by kind of row, residuals and calibration."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ncf.data.dataset import PreparedDataset
from ncf.evaluation.calibration import Calibration
from ncf.evaluation.residuals import Residuals, by_popularity, by_rating, by_time, residuals
from ncf.evaluation.slices import Slice
from ray_jobs.report import plots
from ray_jobs.report.document import Block, DataTable, Heading, Plot, ReportSection, Text
from ray_jobs.results.comparison import Comparison, predicted
from ray_jobs.results.run import Workspace
from ray_jobs.stages.training import FinalModel


def slices_section(comparison: Comparison) -> ReportSection:
    """Errors by kind of row, of the model and the baseline or of all compared configurations."""
    tables: list[DataTable] = []
    for name, parts in groupby(comparison.assessment.slices, key=lambda part: part.name):
        tables += _slices_tables(name, tuple(parts))
    whose = (
        "the compared models"
        if comparison.fixed
        else f"{comparison.model} and of the baseline {comparison.baseline}"
    )
    return ReportSection(
        "Where the errors are",
        (Text(f"Test errors of {whose} by kind of row. Kinds with few rows say little."), *tables),
    )


def _slices_tables(name: str, parts: tuple[Slice, ...]) -> Iterator[DataTable]:
    """RMSE and MAE by one way of dividing rows: together for two models, else a table each."""
    models = [errors.model for errors in parts[0].errors]
    metrics = {"RMSE": [[e.rmse for e in part.errors] for part in parts]}
    metrics["MAE"] = [[e.mae for e in part.errors] for part in parts]
    together = len(models) <= 2
    for shown in (tuple(metrics),) if together else tuple((metric,) for metric in metrics):
        header = tuple(f"{metric}, {model}" for metric in shown for model in models)
        rows = tuple(
            (
                part.label,
                f"{part.num_rows:,}",
                *(f"{value:.4f}" for metric in shown for value in metrics[metric][number]),
            )
            for number, part in enumerate(parts)
        )
        caption = f"Test errors by: {name}" if together else f"Test {shown[0]} by: {name}"
        yield DataTable(caption, (name, "rows", *header), rows)


def residuals_section(
    workspace: Workspace, comparison: Comparison, prepared: PreparedDataset, model: FinalModel
) -> ReportSection:
    """Prediction minus rating of the comparison's best model, from its stored predictions."""
    learned_from = model.prepared if comparison.refitted else prepared
    columns = ["movie_index", "rating", "weight", "timestamp"]
    rows = learned_from.table("test", columns)
    ratings = rows["rating"].to_numpy()
    is_decayed = comparison.scale == "decayed"
    actual = ratings * rows["weight"].to_numpy() if is_decayed else ratings
    (entry,) = (e for e in comparison.entries if e.name == comparison.model)
    predictions = predicted(entry, comparison.scale, workspace.paths.predictions)
    train_counts = learned_from.preprocessor.movies.train_counts[rows["movie_index"].to_numpy()]
    ways = {
        "By the rating given": (by_rating(ratings), _REGRESSION),
        "By popularity of the movie": (by_popularity(train_counts), ""),
        "By time": (by_time(rows["timestamp"].to_numpy()), ""),
    }
    blocks: list[Block] = [
        Text(
            f"Predictions minus ratings of {comparison.model} on the test rows, over all its "
            f"training seeds, in {_unit(comparison)}: above 0 where predictions are too high."
        )
    ]
    for title, (way, remark) in ways.items():
        blocks += _residuals_of(
            title, way.name, remark, residuals(way, predictions - actual), comparison
        )
    return ReportSection("Residuals", tuple(blocks))


_REGRESSION = (
    "The slope is regression to the mean and not a defect: a prediction is an expected rating, so "
    "low ratings were mostly expected to be higher, and high ones lower. Only predictions without "
    "any error would have no slope. Calibration, the mean rating given the prediction, shows "
    "whether predictions are biased."
)


def _unit(comparison: Comparison) -> str:
    return "stars" if comparison.scale == "stars" else "rating × decay weight"


def _residuals_of(
    title: str, what: str, remark: str, groups: tuple[Residuals, ...], comparison: Comparison
) -> Iterator[Block]:
    name = f"residuals_{title.split()[-1]}" if what != "rating" else "residuals_rating"
    described = "; ".join(f"{r.label}: {r.mean:+.3f}, RMSE {r.rmse:.3f}" for r in groups)
    yield Heading(title)
    if remark:
        yield Text(remark)
    yield Plot(
        name,
        f"Mean residual (bars) and RMSE (diamonds) of {comparison.model}, by {what}.",
        f"Bars for the mean residual and diamonds for the RMSE by {what}: {described}",
        plots.residuals({r.label: (r.mean, r.rmse) for r in groups}, what, _unit(comparison)),
    )
    yield DataTable(
        f"Residuals by: {what}",
        (what, "rows", "mean residual", "RMSE"),
        tuple((r.label, f"{r.num_rows:,}", f"{r.mean:+.4f}", f"{r.rmse:.4f}") for r in groups),
    )


def calibration_section(comparison: Comparison) -> ReportSection:
    """Mean ratings given the predictions."""
    unit, calibrations = _unit(comparison), comparison.assessment.calibrations
    closer = {
        c.model: c for c in calibrations if c.model in (comparison.model, comparison.baseline)
    }
    return ReportSection(
        "Calibration",
        (
            Text(
                f"Test predictions by tenths of their size, in {unit}, with the mean rating of "
                "each tenth. The expected error is the mean distance between the two. Slope and "
                "intercept are those of the regression of ratings on predictions, 1 and 0 at best."
            ),
            _calibration_plot(closer, unit),
            _calibration_table(calibrations),
            _tenths(closer[comparison.model]),
        ),
    )


def _calibration_plot(closer: dict[str, Calibration], unit: str) -> Plot:
    return Plot(
        "calibration",
        "Mean rating over mean prediction, by tenths of the predictions. On the dashed line, "
        "ratings are as high as predicted.",
        "Lines of the mean rating over the mean prediction, by tenths of the predictions, of "
        + " and ".join(
            f"{name}, from {c.bins[0].actual:.2f} where {c.bins[0].predicted:.2f} was predicted to "
            f"{c.bins[-1].actual:.2f} where {c.bins[-1].predicted:.2f} was"
            for name, c in closer.items()
        ),
        plots.calibration(
            {name: [(b.predicted, b.actual) for b in c.bins] for name, c in closer.items()}, unit
        ),
    )


def _calibration_table(calibrations: tuple[Calibration, ...]) -> DataTable:
    rows = (
        (
            c.model,
            f"{c.expected_error:.4f}",
            *("—" if value is None else f"{value:.3f}" for value in (c.slope, c.intercept)),
        )
        for c in calibrations
    )
    header = ("model", "expected error", "slope", "intercept")
    return DataTable("Calibration of every model", header, tuple(rows))


def _tenths(calibration: Calibration) -> DataTable:
    rows = (
        (str(number), f"{b.num_rows:,}", f"{b.predicted:.3f}", f"{b.actual:.3f}")
        for number, b in enumerate(calibration.bins, start=1)
    )
    return DataTable(
        f"Tenths of the predictions of {calibration.model}, over all its seeds",
        ("tenth", "predictions", "mean prediction", "mean rating"),
        tuple(rows),
    )
