"""Recommendations for one user or a new user with their reasons, and movies like one movie."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.table import Table
from rich.text import Text

from foundation.console import show
from ncf.data.dataset import PreparedDataset
from ncf.data.preprocessor import UNKNOWN
from ncf.data.splits import SPLITS
from ncf.errors import UnknownIdError
from ncf.inference.explanations import Explanation
from ncf.inference.recommender import ChoiceExplanation, Recommendations, Recommender
from ray_jobs.config import RecommendConfig
from ray_jobs.results.final_model import load_recommender, ordering_of, rated_movies
from ray_jobs.results.run import Workspace
from ray_jobs.results.user_csv import read_ratings

logger = logging.getLogger(__name__)

_BASE: Final = {
    "network": "the network, with the mean rating",
    "biases": "biases",
    "gmf": "products of the user's and the movie's vectors",
}


@dataclass(frozen=True)
class Query:
    """What to print: the recommendations of a user or of a new one, or the movies like a movie."""

    user: int | None = None
    """Id of a user with training ratings."""
    new_user: Path | None = None
    """CSV with the ratings of a user who is not in the training data."""
    movie: str | None = None
    """A title."""
    num_reasons: int | None = None
    """Ratings to name for and against each recommendation; None explains nothing."""


def show_one(workspace: Workspace, prepared: PreparedDataset, query: Query) -> None:
    """Print the answer about one user, a new user, or one movie.

    Raises:
        UnknownIdError: if the user has no training rating, or no movie has the title.
        UnsupportedError: if this kind of model has no answer.
        DatasetError: if the file with a new user's ratings cannot be used.
    """
    recommender = load_recommender(workspace.paths.checkpoint)
    settings = workspace.config.recommend
    if query.movie is not None:
        _show_similar(recommender, query.movie, settings.top_n)
    elif query.new_user is not None:
        own = read_ratings(query.new_user, recommender)
        # A model may condition on the newest of them alone, so that it cannot name all as seen.
        title = f"For the ratings in {query.new_user}"
        folded = recommender.fold_in(own.movies, own.ratings, own.times)
        _show_best(folded, 0, own.movies, title, query.num_reasons, settings)
    elif query.user is not None:
        seen = recommender.preprocessor.movies.ids[_seen_by(prepared, query.user)]
        title = f"For user {query.user}, of movies not rated yet"
        _show_best(recommender, query.user, seen, title, query.num_reasons, settings)


def _show_similar(recommender: Recommender, title: str, top_n: int) -> None:
    movie = recommender.find(title)
    similar = recommender.similar(movie, top_n)
    show(_movies(similar, f"Like {recommender.title(movie)}", "similarity", similar.scores))


def _show_best(
    recommender: Recommender,
    user: int,
    seen: np.ndarray,
    title: str,
    num_reasons: int | None,
    settings: RecommendConfig,
) -> None:
    ordering = ordering_of(settings)
    best = recommender.recommend(user, settings.top_n, seen.tolist(), ordering)
    is_by_choice = recommender.order_of(ordering) == "choice"
    what, values = ("score", best.scores) if best.stars is None else ("predicted", best.stars)
    show(_movies(best, title, what, values))
    if len(best.movies) < settings.top_n and settings.min_ratings:
        logger.info(
            f"note: of the movies not rated yet only {len(best.movies)} have at least "
            f"{settings.min_ratings} training ratings; --set recommend.min_ratings=0 offers all"
        )
    if num_reasons and is_by_choice:
        for table in _choice_reasons(recommender, user, best, num_reasons):
            show(table)
    elif num_reasons:
        for table in _reasons(recommender, recommender.explain(user, best.movies), num_reasons):
            show(table)


def _seen_by(prepared: PreparedDataset, user_id: int) -> np.ndarray:
    """Movie indices that a training user has rated in any split."""
    known = prepared.preprocessor.user_ids
    index = prepared.preprocessor.user_index(np.array([user_id]))[0]
    if index == UNKNOWN:
        raise UnknownIdError(
            f"user {user_id} has no training rating. The model knows {len(known):,} users, with "
            f"ids from {known[0]} to {known[-1]}."
        )
    return rated_movies(prepared, SPLITS).by(int(index))


def _movies(best: Recommendations, title: str, what: str, values: np.ndarray) -> Table:
    table = Table(title=title)
    for column in ("#", what, "movie", "id"):
        table.add_column(column, justify="left" if column == "movie" else "right")
    for rank, (movie, name, value) in enumerate(
        zip(best.movies, best.titles, values, strict=True), start=1
    ):
        table.add_row(str(rank), f"{value:.2f}", Text(name), str(movie))
    return table


def _choice_reasons(
    recommender: Recommender, user: int, best: Recommendations, at_most: int
) -> Iterator[Table]:
    """For each movie the ratings that say most that the user will choose it, or will not."""
    for why in recommender.explain_choices(user, best.movies):
        table = Table(title=f"{recommender.title(why.movie)}: {why.score:.3f}")
        table.add_column("adds", justify="right")
        table.add_column("because of")
        table.add_column("rated", justify="right")
        table.add_row(f"{why.context:+.3f}", "the time of the newest rating", "")
        _add_ratings(table, recommender, why, at_most)
        yield table


def _reasons(recommender: Recommender, reasons: list[Explanation], at_most: int) -> Iterator[Table]:
    """For each movie the parts of its prediction, with the ratings that moved it most."""
    if not recommender.checkpoint.model.has_attributions:
        logger.info(
            "note: the contribution of each of the user's ratings is known only for a model with "
            "the Gaussian process (model.history.encoders); for this one, the parts of the network "
            "that add up to the prediction"
        )
    for why in reasons:
        table = Table(title=f"{recommender.title(why.movie)}: {why.prediction:.2f}")
        table.add_column("adds", justify="right")
        table.add_column("because of")
        table.add_column("rated", justify="right")
        for name, part in why.base.items():
            table.add_row(f"{part:+.3f}", _BASE[name], "")
        _add_ratings(table, recommender, why, at_most)
        yield table


def _add_ratings(
    table: Table, recommender: Recommender, why: Explanation | ChoiceExplanation, at_most: int
) -> None:
    """Rows of the ratings that add most, of those that take most away, and of the rest."""
    order = np.argsort(-why.added, kind="stable")
    up = [i for i in order[:at_most] if why.added[i] > 0]
    down = [i for i in order[::-1][:at_most] if why.added[i] < 0][::-1]
    for i in up:
        table.add_row(*_rating(recommender, why, i))
    if rest := len(order) - len(up) - len(down):
        others = why.added.sum() - why.added[[*up, *down]].sum()
        table.add_row(f"{others:+.3f}", f"{rest} other ratings", "")
    for i in down:
        table.add_row(*_rating(recommender, why, i))


def _rating(
    recommender: Recommender, why: Explanation | ChoiceExplanation, i: int
) -> tuple[str, Text, str]:
    title = Text(recommender.title(int(why.rated[i])))
    return f"{why.added[i]:+.3f}", title, f"{why.ratings[i]:.3g}"
