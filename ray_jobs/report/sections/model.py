"""The final model: its errors, its rankings, and what it recommends."""

from __future__ import annotations

from itertools import zip_longest
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from ingest.raw_data import RawData
from ncf.data.titles import display_title
from ray_jobs.config import JobConfig
from ray_jobs.report.document import DataTable, ReportSection, Text
from ray_jobs.report.sections.search import short
from ray_jobs.results import undefined
from ray_jobs.results.run import Workspace
from ray_jobs.stages.training import FinalModel
from ray_jobs.stages.tuning import BestTrial

_EXAMPLE_USERS: Final = 3
_EXAMPLE_MOVIES: Final = 5


def model_section(model: FinalModel, best_trial: BestTrial, config: JobConfig) -> ReportSection:
    """How the final model was made, and its errors."""
    metrics = model.metrics
    rows = [
        (split, f"{m.num_ratings:,}", *(undefined.shown(value) for value in (m.rmse, m.mae, m.r2)))
        for split, m in (("validation", metrics.validation), ("test", metrics.test))
        if m
    ]
    how = (
        f"Trained on training and validation rows for {metrics.best_epoch} epochs, the number "
        "that was best on the validation rows for a model without them; the validation figures are "
        "that model's."
        if metrics.refit_on_validation
        else "Trained on the training rows; the best epoch was chosen on the validation rows."
        if metrics.validation
        else f"Trained on the training rows for {config.train.epochs} epochs."
    )
    chosen_by = (
        "Chosen by the search: "
        + ", ".join(f"{key} = {short(value)}" for key, value in best_trial.parameters.items())
        + "."
        if best_trial.parameters
        else "The configuration as it was given; no search was made."
    )
    table = DataTable(
        "Errors of the final model in stars", ("rows", "count", "RMSE", "MAE", "R²"), tuple(rows)
    )
    blocks = (Text(chosen_by), Text(how), table, *_members(model), *_uncertainty(model))
    return ReportSection("The final model", blocks)


def _members(model: FinalModel) -> tuple[Text | DataTable, ...]:
    """The members of a blend, each by itself."""
    members = model.metrics.members
    if not members:
        return ()
    rows = tuple(
        (
            member.name,
            f"{member.weight:.3f}",
            *(undefined.shown(m.rmse) for m in (member.validation, member.test)),
        )
        for member in members
    )
    return (
        Text(
            "It is a blend: its prediction is the mean rating plus the weighted sum of what its "
            "members add to it. Weights are non-negative least squares on the validation rows; the "
            "blend's validation errors are by weights that were fitted to other validation rows."
        ),
        DataTable(
            "Members of the blend, each by itself",
            ("member", "weight", "validation RMSE", "test RMSE"),
            rows,
        ),
    )


def _uncertainty(model: FinalModel) -> tuple[Text | DataTable, ...]:
    """How good standard deviations and intervals are."""
    scores = model.metrics.uncertainty
    if scores is None:
        return ()
    rows = tuple(
        (f"{float(level):.0%}", f"{share:.1%}", f"{scores.width[level]:.2f}")
        for level, share in scores.coverage.items()
    )
    return (
        Text(
            f"On {scores.num_ratings:,} test rows the mean negative log likelihood of ratings is "
            f"{scores.nll:.4f} with the predicted standard deviations and "
            f"{scores.constant_nll:.4f} with one for all rows, and the mean continuous ranked "
            f"probability score {scores.crps:.4f} and {scores.constant_crps:.4f} stars; less is "
            "better. Both were learned on validation rows."
        ),
        DataTable(
            "Intervals of predicted ratings",
            ("interval", "of the test ratings inside", "mean width in stars"),
            rows,
        ),
    )


def rankings_section(model: FinalModel) -> ReportSection:
    """How well the final model ranks movies that were not rated, beside their popularity."""
    ranking = model.metrics.ranking
    at = ranking.at
    rows = tuple(
        (name, *(f"{value:.4f}" for value in (scores.ndcg, scores.recall, scores.map)))
        for name, scores in (
            ("the final model", ranking.model),
            ("number of ratings", ranking.popularity),
        )
        if scores
    )
    how = (
        "Each user's ranking is of all movies that the user has not rated in the training or "
        "validation rows, by predicted rating. Relevant are the user's test rows with "
        f"{ranking.relevant_stars:g} stars or more; users without any, or without a training "
        f"rating, are left out: {ranking.num_users:,} remain, {ranking.num_users_ranked:,} of "
        "them are scored. Beside it the same movies by their number of training ratings. People "
        "rate what they came to see, so a movie without ratings counts as not relevant here "
        "whether good or not, which favours the popular; and the model is trained to predict "
        "ratings, not what will be rated."
    )
    header = ("ranked by", f"NDCG@{at}", f"recall@{at}", f"MAP@{at}")
    table = DataTable(f"Rankings, the first {at} movies of each", header, rows)
    return ReportSection("Rankings", (Text(how), *((table,) if rows else ())))


def examples_section(workspace: Workspace, raw: RawData) -> ReportSection:
    """What some users rated highest, and what they are recommended."""
    file = workspace.recommendations
    table: pa.Table = file.read_table()
    users = table["user_id"].unique().to_pylist()[:_EXAMPLE_USERS]
    liked = _liked(raw, users)
    return ReportSection(
        "Examples of recommendations",
        (
            Text(
                "On the left what the user rated highest, of equal ratings the newest first; on "
                "the right the movies that the final model puts first among all others. A movie "
                "that few have rated may be there because little speaks against it."
            ),
            *(_example(user, liked[user], table) for user in users),
            Text(f"All recommendations: {file}"),
        ),
    )


def _liked(raw: RawData, users: list[int]) -> dict[int, list[tuple[str, str]]]:
    """Title and stars of the movies that each of ``users`` rated highest.

    Of the ratings no more than those of these users are held in memory.
    """
    folder, filesystem = raw.folder.path, raw.folder.filesystem
    ratings = pds.dataset(f"{folder}/ratings.parquet", filesystem=filesystem).to_table(
        columns=["user_id", "movie_id", "rating", "timestamp"],
        filter=pc.field("user_id").isin(users),
    )
    movies = (raw.folder / "movies.parquet").read_table(["movie_id", "title"])
    best = ratings.join(movies, "movie_id").sort_by(
        [("rating", "descending"), ("timestamp", "descending"), ("movie_id", "ascending")]
    )
    return {
        user: [
            (display_title(row["title"]), f"{row['rating']:g}")
            for row in best.filter(pc.equal(best["user_id"], user))
            .slice(0, _EXAMPLE_MOVIES)
            .to_pylist()
        ]
        for user in users
    }


def _stars(predicted: float | None) -> str:
    """A predicted rating, if there is a rating model."""
    return "–" if predicted is None else f"{predicted:.2f}"


def _example(user: int, liked: list[tuple[str, str]], table: pa.Table) -> DataTable:
    rows = table.filter(pc.equal(table["user_id"], user)).slice(0, _EXAMPLE_MOVIES).to_pylist()
    recommended = [(row["title"], _stars(row["predicted_rating"])) for row in rows]
    nothing = ("", "")
    return DataTable(
        f"User {rows[0].get('user', user)}",
        ("rated highest", "stars", "recommended", "predicted"),
        tuple((*a, *b) for a, b in zip_longest(liked, recommended, fillvalue=nothing)),
        words=(0, 2),
    )
