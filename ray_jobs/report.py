"""Results of a run -> ``report.html``, ``report.md`` and ``plots/``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from ingest.manifest import DATASET_FILE, MOVIELENS_CITATION, TMDB_ATTRIBUTION
from ingest.stage import RawData
from ncf import plots
from ncf.prepared import Prepared
from ncf.report import DataTable, Plot, Report, ReportSection
from ncf.significance import Difference
from ray_jobs.comparison import (
    DIFFERENCE_COLUMNS,
    METRICS,
    Comparison,
    Entry,
    difference_cells,
    shown,
)
from ray_jobs.config import JobConfig
from ray_jobs.console import say
from ray_jobs.train import Trained
from ray_jobs.trials import METRIC
from ray_jobs.tune import Chosen
from ray_jobs.workspace import Workspace

ATTRIBUTIONS: Final = (MOVIELENS_CITATION, TMDB_ATTRIBUTION)
SYNTHETIC: Final = (
    "SYNTHETIC DATA: every user, movie and rating here was generated. The figures say that the "
    "program works and nothing about real films or real taste."
)
EXAMPLE_USERS: Final = 2


def write_report(
    workspace: Workspace,
    raw: RawData,
    prepared: Prepared,
    chosen: Chosen,
    comparison: Comparison,
    trained: Trained,
) -> None:
    """Write the report of a finished run."""
    config, folder = workspace.config, workspace.run
    report = Report(
        title=f"Rating models on {raw.name}: run {config.name}",
        warnings=((SYNTHETIC,) if raw.synthetic else ()),
        sections=(
            _data(raw, prepared),
            _comparison(comparison),
            _differences(comparison),
            _slices(comparison),
            _calibration(comparison),
            *_search(workspace, chosen),
            _final(trained, chosen, config),
            _rankings(trained),
            _examples(workspace),
            _run(trained, chosen, config),
        ),
        footnotes=tuple(notice for notice in raw.notices if notice in ATTRIBUTIONS),
    )
    for plot in report.plots:
        (folder / "plots" / f"{plot.name}.png").write_bytes(plot.png)
    (folder / "report.md").write_text(report.markdown("plots"))
    (folder / "report.html").write_text(report.html())
    say(f"report: {folder / 'report.html'}")


def _data(raw: RawData, prepared: Prepared) -> ReportSection:
    counts = prepared.manifest.counts
    cells = raw.num_users * raw.num_movies
    rows = [
        ("ratings", f"{raw.num_ratings:,}"),
        ("users", f"{raw.num_users:,}"),
        ("movies", f"{raw.num_movies:,}"),
        ("share of all (user, movie) pairs rated", f"{raw.num_ratings / cells:.2%}"),
        *((f"{split} rows", f"{number:,}") for split, number in counts.items()),
        *((f"TMDb records: {status}", f"{n:,}") for status, n in raw.tmdb_coverage.items()),
        ("numeric features", str(len(prepared.fitted.numeric))),
    ]
    floor = (raw.folder / DATASET_FILE).read_json()["noise_floor_rmse"]
    if floor is not None:
        rows.append(("noise floor: RMSE of the planted truth", f"{floor:.4f}"))
    notices = tuple(notice for notice in raw.notices if notice not in ATTRIBUTIONS)
    return ReportSection("Data", notices, (DataTable(("", ""), tuple(rows)),))


def _comparison(comparison: Comparison) -> ReportSection:
    original = comparison.scale == "decayed"
    main = _entries_table(comparison, comparison.scale)
    other = _entries_table(comparison, "stars" if original else "decayed")
    paragraphs = (
        f"Test errors on {comparison.num_test:,} rows; mean ± standard deviation over seeds of the "
        "training. The first table is in "
        + ("rating × decay weight, the original work's scale" if original else "stars")
        + ", the second in "
        + ("stars" if original else "rating × decay weight")
        + ".",
        "On the scale rating × decay weight most of the variance is the age of the rating, which "
        "every row here knows: the global mean alone has a high R² there. It says little about "
        "taste.",
        "What is scored was trained, or fitted, again on training and validation rows together, "
        "for the number of epochs and with the settings that were best before."
        if comparison.refitted
        else "What is scored was trained on the training rows alone.",
        f"Each loss runs with the settings of a search of its own, {comparison.trials_per_loss} "
        "trials each."
        if comparison.trials_per_loss
        else "All losses run with the same settings: if a search chose them, they suit the loss of "
        "its winner best (compare.trials_per_loss gives each loss a search of its own).",
    )
    fitted = DataTable(
        ("model", "how it was fitted"), tuple((e.name, e.detail) for e in comparison.entries)
    )
    return ReportSection(
        "Comparison of losses",
        paragraphs,
        (main, other, fitted),
        tuple(_comparison_plots(comparison)),
    )


def _entries_table(comparison: Comparison, scale: str) -> DataTable:
    def row(entry: Entry) -> tuple[str, ...]:
        figures = (shown(*entry.figure(metric, scale)) for metric in METRICS)
        return (entry.name, str(len(entry.test)), *figures)

    return DataTable(
        ("model", "seeds", "RMSE", "MAE", "R²"), tuple(row(e) for e in comparison.entries)
    )


def _comparison_plots(comparison: Comparison) -> Iterator[Plot]:
    values = {e.name: e.figure("rmse", comparison.scale) for e in comparison.entries}
    described = "; ".join(f"{name} {shown(*value)}" for name, value in values.items())
    yield Plot("comparison", f"Test RMSE: {described}", plots.dots(values, "test RMSE"))
    name = "validation_rmse" if comparison.scale == "stars" else "validation_decayed_rmse"
    curves = {
        e.name: [[epoch[name] for epoch in run] for run in e.curves]
        for e in comparison.entries
        if e.curves and name in e.curves[0][0]
    }
    if curves:
        yield Plot(
            "learning_curves",
            "Validation RMSE after each epoch, one line for each loss and seed",
            plots.learning_curves(curves, "validation RMSE"),
        )


def _differences(comparison: Comparison) -> ReportSection:
    found = comparison.assessment.differences
    rmse = {f"{d.first} − {d.second}": d for d in found if d.metric == "rmse"}
    plot = Plot(
        "differences",
        "Difference of the test RMSE, with corrected interval: "
        + "; ".join(
            f"{name} {d.value:+.4f} ({d.corrected_low:+.4f} to {d.corrected_high:+.4f})"
            for name, d in rmse.items()
        ),
        plots.intervals(
            {name: (d.value, d.corrected_low, d.corrected_high) for name, d in rmse.items()},
            "difference of the test RMSE",
        ),
    )
    tables = [
        DataTable(
            (f"{metric.upper()}, first − second", *DIFFERENCE_COLUMNS[1:]),
            tuple(difference_cells(d) for d in found if d.metric == metric),
        )
        for metric in ("rmse", "mae")
    ]
    return ReportSection(
        "Which differences are more than chance",
        (
            f"A paired bootstrap: the {comparison.assessment.num_users:,} users of the test rows "
            "are drawn with replacement, the same ones for all models"
            + (
                "; what other training seeds might have given comes on top, with a spread that is "
                "estimated from all losses together. "
                if any(len(entry.test) > 1 for entry in comparison.entries)
                else ". With one training seed each, what other seeds would have given is unknown "
                "and not accounted for. "
            )
            + "The intervals hold with 95 % for all comparisons at once (Bonferroni), p is "
            "corrected by Holm's method. A model is called better only if both say so. The "
            f"baseline, {comparison.baseline}, is the one that is best on the validation rows, if "
            "there are any.",
            _verdict(comparison),
        ),
        tuple(tables) if found else (),
        (plot,) if found else (),
    )


def _verdict(comparison: Comparison) -> str:
    """What may be said, in a sentence."""
    found = comparison.assessment.differences
    if not found:
        return "There is one user alone in the test rows: nothing can be said."
    metrics: dict[tuple[str, str], list[str]] = {}
    for d in found:
        if d.better:
            metrics.setdefault((d.better, _other(d)), []).append(d.metric.upper())
    sure = [
        f"{better} has a lower {' and '.join(names)} than {other}"
        for (better, other), names in metrics.items()
    ]
    undecided = sum(not d.better for d in found)
    return ("; ".join(sure) if sure else "No difference is more than chance may have made") + (
        f"; {undecided} of {len(found)} comparisons are undecided." if undecided else "."
    )


def _other(difference: Difference) -> str:
    return difference.second if difference.better == difference.first else difference.first


def _slices(comparison: Comparison) -> ReportSection:
    pair = (comparison.model, comparison.baseline)
    tables = []
    for name, parts in groupby(comparison.assessment.slices, key=lambda part: part.name):
        rows = [
            (
                part.label,
                f"{part.num_rows:,}",
                *(f"{errors.rmse:.4f}" for errors in part.errors),
                *(f"{errors.mae:.4f}" for errors in part.errors),
            )
            for part in parts
        ]
        header = (name, "rows", *(f"RMSE, {m}" for m in pair), *(f"MAE, {m}" for m in pair))
        tables.append(DataTable(header, tuple(rows)))
    return ReportSection(
        "Where the errors are",
        (
            f"Test errors of {comparison.model} and of the baseline {comparison.baseline} by kind "
            "of row. Kinds with few rows say little.",
        ),
        tuple(tables),
    )


def _calibration(comparison: Comparison) -> ReportSection:
    unit = "stars" if comparison.scale == "stars" else "rating × decay weight"
    found = comparison.assessment.calibrations
    rows = [
        (
            c.model,
            f"{c.expected_error:.4f}",
            *("—" if value is None else f"{value:.3f}" for value in (c.slope, c.intercept)),
        )
        for c in found
    ]
    shown_ones = {c.model: c for c in found if c.model in (comparison.model, comparison.baseline)}
    tenths = [
        (str(number), f"{b.num_rows:,}", f"{b.predicted:.3f}", f"{b.actual:.3f}")
        for number, b in enumerate(shown_ones[comparison.model].bins, start=1)
    ]
    return ReportSection(
        "Calibration",
        (
            f"Test predictions by tenths of their height, in {unit}: do ratings come out as high "
            "as predicted? The expected error is the mean distance between the two; slope and "
            "intercept are those of the line through ratings over predictions, 1 and 0 at best. "
            f"The second table is that of {comparison.model}, over all its seeds.",
        ),
        (
            DataTable(("model", "expected error", "slope", "intercept"), tuple(rows)),
            DataTable(("tenth", "predictions", "mean prediction", "mean rating"), tuple(tenths)),
        ),
        (
            Plot(
                "calibration",
                "Mean rating over mean prediction, by tenths of the predictions, of "
                + " and ".join(shown_ones),
                plots.calibration(
                    {
                        name: [(b.predicted, b.actual) for b in c.bins]
                        for name, c in shown_ones.items()
                    },
                    unit,
                ),
            ),
        ),
    )


def _search(workspace: Workspace, chosen: Chosen) -> Iterator[ReportSection]:
    if chosen.num_trials:
        yield search_section((workspace.run / "trials.parquet").read_table().to_pylist())


def search_section(trials: list[dict[str, Any]]) -> ReportSection:
    """What came of a search; ``trials`` are the rows of ``trials.parquet``, one of them judged."""
    judged = [trial for trial in trials if trial["state"] != "failed"]
    failed = [trial for trial in trials if trial["state"] == "failed"]
    stopped = sum(trial["state"] == "stopped" for trial in trials)
    errors = [trial[METRIC] for trial in judged]
    keys = [name for name in trials[0] if name.startswith("config.")]
    names = tuple(key.split(".")[-1] for key in keys)
    best = DataTable(
        ("trial", "validation RMSE", "best epoch", *names),
        tuple(
            (
                str(trial["trial"]),
                f"{trial[METRIC]:.4f}",
                str(trial["best_epoch"]),
                *(_short(trial[key]) for key in keys),
            )
            for trial in sorted(judged, key=lambda trial: trial[METRIC])[:5]
        ),
    )
    failures = DataTable(
        ("trial", *names, "failed with"),
        tuple(
            (str(trial["trial"]), *(_short(trial[key]) for key in keys), trial["error"])
            for trial in failed
        ),
    )
    return ReportSection(
        "Search",
        (
            f"{len(trials)} trials by Optuna's TPE sampler: {len(judged) - stopped} trained to "
            f"their end, {stopped} stopped by ASHA because they fell behind, {len(failed)} failed. "
            "Trials are compared by validation RMSE in stars; no test row was read. The best five"
            + (", and those that failed:" if failed else ":"),
        ),
        (best, failures) if failed else (best,),
        (
            Plot(
                "search_history",
                f"Validation RMSE of {len(errors)} trials; the best is {min(errors):.4f}",
                plots.search_history(errors, "validation RMSE"),
            ),
        ),
    )


def _final(trained: Trained, chosen: Chosen, config: JobConfig) -> ReportSection:
    metrics = trained.metrics
    rows = []
    for split in ("validation", "test"):
        values: dict[str, Any] | None = metrics[split]
        if values:
            rows.append(
                (split, *(f"{values[m]:.4f}" for m in METRICS), f"{values['num_ratings']:,}")
            )
    how = (
        f"Trained on training and validation rows for {metrics['best_epoch']} epochs, the number "
        "that was best on the validation rows for a model without them; the validation figures are "
        "that model's."
        if metrics["refit_on_validation"]
        else "Trained on the training rows; the best epoch was chosen on the validation rows."
        if metrics["validation"]
        else f"Trained on the training rows for {config.train.epochs} epochs."
    )
    chosen_by = (
        "Chosen by the search: "
        + ", ".join(f"{key} = {_short(value)}" for key, value in chosen.parameters.items())
        + "."
        if chosen.parameters
        else "The configuration as it was given; no search was made."
    )
    table = DataTable(("rows", "RMSE", "MAE", "R²", "count"), tuple(rows))
    return ReportSection("The kept model", (chosen_by, how, "Errors in stars."), (table,))


def _rankings(trained: Trained) -> ReportSection:
    found = trained.metrics["ranking"]
    at = found["at"]
    rows = tuple(
        (name, *(f"{found[key][metric]:.4f}" for metric in ("ndcg", "recall", "map")))
        for name, key in (("the kept model", "model"), ("number of ratings", "popularity"))
        if found[key]
    )
    how = (
        "Each user's ranking is of all movies that the user has not rated in the training or "
        "validation rows, by predicted rating. Relevant are the user's test rows with "
        f"{found['relevant_stars']:g} stars or more; users without any, or without a training "
        f"rating, are left out: {found['num_users']:,} remain, {found['num_users_ranked']:,} of "
        "them are scored. Beside it the same movies by their number of training ratings. People "
        "rate what they came to see, so a movie that nobody rated counts as not relevant here "
        "whether good or not, which favours the popular; and the model is trained to predict "
        "ratings, not what will be rated."
    )
    header = ("ranked by", f"NDCG@{at}", f"recall@{at}", f"MAP@{at}")
    return ReportSection("Rankings", (how,), (DataTable(header, rows),) if rows else ())


def _examples(workspace: Workspace) -> ReportSection:
    file = workspace.recommendations / "recommendations.parquet"
    table: pa.Table = file.read_table()
    tables = []
    for user in table["user_id"].unique().to_pylist()[:EXAMPLE_USERS]:
        rows = table.filter(pc.equal(table["user_id"], user)).slice(0, 5).to_pylist()
        tables.append(
            DataTable(
                (f"user {user}", "predicted stars"),
                tuple((r["title"], f"{r['predicted_rating']:.2f}") for r in rows),
            )
        )
    return ReportSection("Examples of recommendations", (f"All of them: {file}",), tuple(tables))


def _run(trained: Trained, chosen: Chosen, config: JobConfig) -> ReportSection:
    metrics = trained.metrics
    split, decay = metrics["split"], chosen.experiment.time_decay
    rows = [
        ("split", f"{split['kind']}, seed {split['seed']}"),
        ("time decay", f"{decay.rate_per_day:g} a day, on {decay.apply_to}"),
        ("training seed", str(metrics["seed"])),
        ("comparison seeds", ", ".join(map(str, config.compare.seeds))),
        ("search seed", str(config.tune.seed)),
        ("configuration", metrics["config_hash"][:16]),
        ("training time", f"{metrics['wall_seconds']:.1f} s"),
        *((kind, f"{amount:g}") for kind, amount in metrics["resources"].items()),
        *metrics["versions"].items(),
    ]
    return ReportSection("What was run", (), (DataTable(("", ""), tuple(rows)),))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
