"""Recommendations for one user or a new user with their reasons, and movies like one movie."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table
from rich.text import Text

from foundation.console import show, show_json
from ingest.sources.parsing import parse_int
from ncf.data.preprocessor import UNKNOWN
from ncf.errors import UnknownIdError
from ncf.inference.explanations import Explanation
from ncf.inference.ids import UNKNOWN_USER
from ncf.inference.recommender import ChoiceExplanation, Recommender
from ncf.inference.results import Recommendations
from ray_jobs.config import RecommendConfig
from ray_jobs.results.final_model import final_model, load_recommender, ordering_of
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

    user: str | None = None
    """Id of a user with training ratings, as the data have it."""
    new_user: Path | None = None
    """CSV with the ratings of a user who is not in the training data."""
    movie: str | None = None
    """A title."""
    num_reasons: int | None = None
    """Ratings to name for and against each recommendation; None explains nothing."""
    as_json: bool = False
    """Print JSON instead of tables; its reasons name all ratings."""


def show_one(workspace: Workspace, query: Query) -> None:
    """Print the answer about one user, a new user, or one movie, by the final model as it is.

    Raises:
        NoModelError: if the run has none.
        UnknownIdError: if the user has no training rating, or no movie has the title.
        UnsupportedError: if this kind of model has no answer.
        DatasetError: if the file with a new user's ratings cannot be used.
    """
    recommender = load_recommender(final_model(workspace))
    settings = workspace.config.recommend
    if query.movie is not None:
        _show_similar(recommender, query.movie, settings.top_n, as_json=query.as_json)
    elif query.new_user is not None:
        own = read_ratings(query.new_user, recommender)
        # A model may condition on the newest of them alone, so that it cannot name all as seen.
        folded = recommender.fold_in(own.movies, own.ratings, own.times)
        best = folded.recommend(0, settings.top_n, own.movies.tolist(), ordering_of(settings))
        _show_best(
            _Answer(folded, 0, best, f"For the ratings in {query.new_user}"), query, settings
        )
    elif query.user is not None:
        user = _known_user(recommender, query.user)
        title = f"For user {query.user}, of movies not rated yet"
        best = recommender.recommend(user, settings.top_n, ordering=ordering_of(settings))
        _show_best(_Answer(recommender, user, best, title), query, settings)


@dataclass(frozen=True)
class _Answer:
    """What is recommended to a user by a model that knows the user."""

    recommender: Recommender
    user: int
    best: Recommendations
    title: str

    def reasons(self, *, by_choice: bool) -> Sequence[Explanation | ChoiceExplanation]:
        """Of each recommended movie."""
        if by_choice:
            return self.recommender.explain_choices(self.user, self.best.movies)
        return self.recommender.explain(self.user, self.best.movies)


def _show_similar(recommender: Recommender, title: str, top_n: int, *, as_json: bool) -> None:
    movie = int(recommender.find(title))
    similar = recommender.similar(movie, top_n)
    if as_json:
        show_json(
            {
                "movieId": _movie_id(recommender, movie),
                "title": recommender.title(movie),
                "similar": [
                    {"movieId": other, "title": name, "similarity": round(score, 6)}
                    for other, name, score in zip(
                        similar.ids,
                        similar.titles,
                        similar.scores.tolist(),
                        strict=True,
                    )
                ],
            }
        )
        return
    show(_movies(similar, f"Like {recommender.title(movie)}", "similarity", similar.scores))


def _show_best(answer: _Answer, query: Query, settings: RecommendConfig) -> None:
    recommender, best = answer.recommender, answer.best
    is_by_choice = recommender.order_of(ordering_of(settings)) == "choice"
    if len(best.movies) < settings.top_n and settings.min_ratings:
        logger.info(
            f"note: of the movies not rated yet only {len(best.movies)} have at least "
            f"{settings.min_ratings} training ratings; --set recommend.min_ratings=0 offers all"
        )
    if query.as_json:
        _show_best_as_json(answer, query, by_choice=is_by_choice)
        return
    what, values = ("score", best.scores) if best.stars is None else ("predicted", best.stars)
    show(_movies(best, answer.title, what, values))
    if not query.num_reasons:
        return
    if is_by_choice:
        for table in _choice_reasons(recommender, answer.user, best, query.num_reasons):
            show(table)
    else:
        reasons = recommender.explain(answer.user, best.movies)
        for table in _reasons(recommender, reasons, query.num_reasons):
            show(table)


def _show_best_as_json(answer: _Answer, query: Query, *, by_choice: bool) -> None:
    best = answer.best
    rows: list[dict[str, Any]] = [
        {"rank": rank, "movieId": movie, "title": title, "score": score}
        for rank, (movie, title, score) in enumerate(
            zip(best.ids, best.titles, best.scores.tolist(), strict=True), start=1
        )
    ]
    if best.stars is not None:
        for row, stars in zip(rows, best.stars.tolist(), strict=True):
            row["stars"] = stars
    if query.num_reasons:
        for row, why in zip(rows, answer.reasons(by_choice=by_choice), strict=True):
            row["reasons"] = _as_json(answer.recommender, why)
    order = "choice" if by_choice else "stars"
    is_number = query.user is not None and answer.recommender.user_texts is None
    user = answer.user if is_number else query.user
    show_json({"user": user, "order": order, "recommendations": rows})


def _as_json(recommender: Recommender, why: Explanation | ChoiceExplanation) -> dict[str, Any]:
    """All terms of an explanation."""
    if isinstance(why, Explanation):
        head: dict[str, Any] = {"prediction": why.prediction, "base": why.base}
        head |= {"features": why.features} if why.features else {}
    else:
        head = {"score": why.score, "context": why.context}
    order = np.argsort(-why.added, kind="stable").tolist()
    return head | {
        "ratings": [
            {
                "movieId": _movie_id(recommender, int(why.rated[i])),
                "title": recommender.title(int(why.rated[i])),
                "rating": float(why.ratings[i]),
                "adds": float(why.added[i]),
            }
            for i in order
        ]
    }


def _movie_id(recommender: Recommender, movie: int) -> int | str:
    """The id that the data have."""
    if recommender.movie_texts is None:
        return movie
    return recommender.movie_texts.texts_of(np.array([movie]))[0]


def _known_user(recommender: Recommender, text: str) -> int:
    """The number of a user with training ratings."""
    texts, known = recommender.user_texts, recommender.preprocessor.user_ids
    number: object
    if texts is not None:
        number = texts.numbers_of(text, unknown=UNKNOWN_USER)
        ids = f"such as {texts.texts[0]!r}"
    else:
        number = parse_int(text, "--user", "the id")
        ids = f"with ids from {known[0]} to {known[-1]}"
    user = int(np.asarray(number))
    if recommender.preprocessor.user_index(np.array([user]))[0] == UNKNOWN:
        raise UnknownIdError(
            f"user {text} has no training rating. The model knows {len(known):,} users, {ids}."
        )
    return user


def _movies(best: Recommendations, title: str, what: str, values: np.ndarray) -> Table:
    table = Table(title=title)
    for column in ("#", what, "movie", "id"):
        table.add_column(column, justify="left" if column == "movie" else "right")
    for rank, (movie, name, value) in enumerate(
        zip(best.ids, best.titles, values, strict=True), start=1
    ):
        table.add_row(str(rank), f"{value:.2f}", Text(name), str(movie))
    return table


def _choice_reasons(
    recommender: Recommender, user: int, best: Recommendations, at_most: int
) -> Iterator[Table]:
    """For each movie the ratings that say most that the user will choose it, or will not."""
    for why in recommender.explain_choices(user, best.movies):
        title = f"{recommender.title(why.movie)}: {why.score:.3f} (EASE: about 1 if chosen)"
        table = Table(title=title)
        table.add_column("adds", justify="right")
        table.add_column("because of")
        table.add_column("rated", justify="right")
        table.add_row(f"{why.context:+.3f}", "the time of the newest rating", "")
        _add_ratings(table, recommender, why, at_most)
        yield table


def _reasons(recommender: Recommender, reasons: list[Explanation], at_most: int) -> Iterator[Table]:
    """For each movie the parts of its prediction, with the ratings that moved it most."""
    if not any(len(why.added) or why.features for why in reasons):
        logger.info(
            "note: the contribution of each of the user's ratings is known only for a model with "
            "the Gaussian process (model.history.encoders), or a blend with trees"
        )
        return
    for why in reasons:
        table = Table(title=f"{recommender.title(why.movie)}: {_total(recommender, why)}")
        table.add_column("adds", justify="right")
        table.add_column("because of")
        table.add_column("rated", justify="right")
        for name, part in why.base.items():
            table.add_row(f"{part:+.3f}", _BASE.get(name, name), "")
        for name, part in why.largest_features(2 * at_most):
            table.add_row(f"{part:+.3f}", name, "")
        _add_ratings(table, recommender, why, at_most)
        yield table


def _total(recommender: Recommender, why: Explanation) -> str:
    """What the parts add up to, and what is shown if that is off the scale."""
    ends = recommender.preprocessor.rating_min, recommender.preprocessor.rating_max
    shown = float(np.clip(why.prediction, *ends))
    if f"{shown:.2f}" == f"{why.prediction:.2f}":
        return f"{why.prediction:.2f}"
    return f"{why.prediction:.2f}, shown as {shown:.2f}, the end of the scale"


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
