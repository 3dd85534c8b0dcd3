"""The data card: what the ratings and movies are, and how much is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import numpy as np

from ingest.manifest import DATASET_FILE
from ingest.raw_data import RawData
from ncf.config import ExperimentConfig
from ncf.data.card import Coverage, Integers, RatingCounts, Unknown, coverage
from ncf.data.dataset import PreparedDataset
from ncf.data.features import TMDB_LISTS
from ray_jobs.report import plots
from ray_jobs.report.document import DataTable, Heading, Plot, ReportSection, Text

_QUANTILES: Final = {
    "fewest": 0.0,
    "lower tenth": 0.1,
    "lower quarter": 0.25,
    "median": 0.5,
    "upper quarter": 0.75,
    "upper tenth": 0.9,
    "most": 1.0,
}


def data_section(
    raw: RawData, prepared: PreparedDataset, experiment: ExperimentConfig
) -> ReportSection:
    """Counts of the raw tables, and what the features and the test rows have of them."""
    place = raw.folder.filesystem, raw.folder.path
    counts = RatingCounts.of(*place)
    fields = coverage(*place, counts, use_tmdb=bool(raw.tmdb_coverage))
    notices = (Text(notice) for notice in raw.notices if notice not in raw.attribution)
    return ReportSection(
        "Data",
        (
            *notices,
            _sizes(raw, prepared, counts),
            _plot(counts),
            _quantiles(counts),
            Heading("What is known about the movies"),
            _coverage(raw, fields, _used(prepared, experiment)),
            Text(_TMDB_IS_USED if raw.tmdb_coverage else _TMDB_IS_NOT_USED),
            Heading("What training knows about the test rows"),
            _unknown(Unknown.of(prepared, "test")),
        ),
    )


_TMDB_IS_USED: Final = (
    "Budget, revenue, popularity, votes, runtime, release date, directors, cast and keywords are "
    "TMDb's; its 0 in budget, revenue, vote average and runtime counts as not known. The year is "
    "that in the title; where there is none, the model takes TMDb's release date."
)
_TMDB_IS_NOT_USED: Final = "No TMDb record was used. The year is that in the title."


def _sizes(raw: RawData, prepared: PreparedDataset, counts: RatingCounts) -> DataTable:
    cells = raw.num_users * raw.num_movies
    rows = [
        ("ratings", f"{raw.num_ratings:,}"),
        ("users", f"{raw.num_users:,}"),
        ("movies in the catalogue", f"{raw.num_movies:,}"),
        ("movies with a rating", f"{len(counts.movie_ids):,}"),
        (
            "sparsity: share of all (user, movie) pairs not rated",
            f"{1 - raw.num_ratings / cells:.2%}",
        ),
        ("oldest rating", _day(counts.first)),
        ("newest rating", _day(counts.last)),
        ("mean rating", f"{_mean(counts.by_stars):.3f} stars"),
        *(
            (f"{split} rows", f"{number:,} ({number / raw.num_ratings:.1%})")
            for split, number in prepared.manifest.counts.items()
        ),
        *((f"TMDb records: {status}", f"{n:,}") for status, n in raw.tmdb_coverage.items()),
    ]
    floor = (raw.folder / DATASET_FILE).read_json()["noise_floor_rmse"]
    if floor is not None:
        rows.append(("noise floor: RMSE of the planted truth", f"{floor:.4f}"))
    return DataTable("The data set", ("what", "how much"), tuple(rows))


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def _mean(by_stars: Mapping[float, int]) -> float:
    return sum(stars * n for stars, n in by_stars.items()) / sum(by_stars.values())


def _plot(counts: RatingCounts) -> Plot:
    total = sum(counts.by_stars.values())
    stars = {f"{value:g}": number for value, number in counts.by_stars.items()}
    years = {
        str(year): counts.by_year.get(year, 0)
        for year in range(min(counts.by_year), max(counts.by_year) + 1)
    }
    described = "; ".join(f"{value} stars {number / total:.1%}" for value, number in stars.items())
    busiest = max(counts.by_year, key=lambda year: counts.by_year[year])
    return Plot(
        "ratings",
        "Number of ratings by their height and by the year in which they were given.",
        f"Columns for the number of ratings of each height: {described}. Columns for each year "
        f"from {min(years)} to {max(years)}, the most in {busiest}, "
        f"{counts.by_year[busiest] / total:.1%}",
        plots.counts({"rating, stars": stars, "year of the rating": years}),
    )


def _quantiles(counts: RatingCounts) -> DataTable:
    def row(name: str, found: Integers) -> tuple[str, ...]:
        values = np.quantile(found, list(_QUANTILES.values()), method="lower")
        return (name, *(f"{value:,}" for value in values), f"{found.mean():,.1f}")

    return DataTable(
        "Ratings per user and per movie",
        ("of those who have any", *_QUANTILES, "mean"),
        (row("ratings of a user", counts.per_user), row("ratings of a movie", counts.per_movie)),
    )


def _used(prepared: PreparedDataset, experiment: ExperimentConfig) -> frozenset[str]:
    """Fields that the model of this configuration uses."""
    model = experiment.model
    inputs: set[str] = {*model.inputs}
    if model.gmf_dim or model.history.encoders:  # their movie vectors come from the content too
        inputs |= {"genres", "decade", "numeric"}
    fields = inputs & {"genres", *TMDB_LISTS}
    if "decade" in inputs:
        fields |= {"year", "release_date"}
    if "numeric" in inputs:
        fields |= {column.name for column in prepared.preprocessor.numeric}
    return frozenset(fields)


def _coverage(raw: RawData, fields: tuple[Coverage, ...], used: frozenset[str]) -> DataTable:
    return DataTable(
        "Movies for which a field is known",
        ("field", "movies", "of the catalogue", "of the ratings", "the model uses it"),
        tuple(
            (
                field.name.replace("_", " "),
                f"{field.num_movies:,}",
                f"{field.num_movies / raw.num_movies:.1%}",
                f"{field.num_ratings / raw.num_ratings:.1%}",
                "yes" if field.name in used else "no",
            )
            for field in fields
        ),
        words=(0, 4),
    )


def _unknown(unknown: Unknown) -> DataTable:
    return DataTable(
        "Test rows whose user or movie has no training rating",
        ("without a training rating", "how many", "test rows", "of all test rows"),
        (
            _unknown_row("users", unknown.users, unknown.user_rows, unknown.num_rows),
            _unknown_row("movies", unknown.movies, unknown.movie_rows, unknown.num_rows),
        ),
    )


def _unknown_row(what: str, number: int, rows: int, all_rows: int) -> tuple[str, ...]:
    return (what, f"{number:,}", f"{rows:,}", f"{rows / all_rows:.1%}")
