"""Recommendations for several new users at once, by what they are likely to choose.

The choice model scores all users in one matrix product, and the Gaussian process predicts the
ratings of the recommended movies alone. Results are those of ``Recommender.fold_in`` and
``recommend`` for each user, up to rounding, which depends on the number of users.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ncf.data.interactions import NEW_USER, Interactions
from ncf.data.preprocessor import Integers
from ncf.inference.explanations import Explanation
from ncf.inference.recommender import ChoiceExplanation, Recommender
from ncf.inference.results import PredictedIntervals
from ray_jobs.web.new_user_stars import NewUserStars

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NewUser:
    """Ratings of a user who is not in the training data."""

    movies: Integers
    """``[H]`` positions in the movie table, at least one, each once."""
    ratings: Floats
    """``[H]`` stars."""
    times: Integers
    """``[H]`` seconds since 1970 UTC."""


@dataclass(frozen=True)
class Wanted:
    """What to recommend to a new user."""

    user: NewUser
    n: int
    """How many movies."""
    min_ratings: int
    """Training ratings of a movie that is offered."""
    has_reasons: bool
    """Whether to explain each movie."""
    level: float | None = None
    """Of the intervals of predicted ratings, if they are wanted."""


@dataclass(frozen=True)
class Found:
    """Recommended movies, best first."""

    movies: Integers
    """``[N]`` positions in the movie table."""
    scores: Floats
    """``[N]`` of the choice model."""
    stars: Floats | None
    """``[N]`` predicted ratings; None without a rating model."""
    why_chosen: Sequence[ChoiceExplanation] | None
    """``[N]`` reasons for the choice, if they are wanted and known."""
    why_stars: Sequence[Explanation] | None
    """``[N]`` reasons for the stars, if they are wanted and known."""
    intervals: PredictedIntervals | None
    """``[N]`` of the stars, if they are wanted and known."""


class NewUsers:
    """Recommends to new users with a choice model.

    Args:
        recommender: has a choice model.
    """

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._table = recommender.preprocessor.movies
        self._stars = None
        if recommender.rating_model and NewUserStars.takes(recommender.rating_model):
            self._stars = NewUserStars(recommender.rating_model)

    def recommend(self, wanted: Sequence[Wanted]) -> list[Found]:
        """What is wanted, in the same order."""
        found: dict[int, Found] = {}
        kinds: dict[tuple[int, int], list[int]] = {}
        for place, each in enumerate(wanted):
            kinds.setdefault((each.n, each.min_ratings), []).append(place)
        for (n, min_ratings), places in kinds.items():
            at_most = self._stars.at_most if self._stars else len(places)
            for start in range(0, len(places), at_most):
                some = places[start : start + at_most]
                answers = self._alike([wanted[place] for place in some], n, min_ratings)
                found.update(zip(some, answers, strict=True))
        return [found[place] for place in range(len(wanted))]

    def _alike(self, wanted: Sequence[Wanted], n: int, min_ratings: int) -> Iterable[Found]:
        """For users who want the same number of movies."""
        assert self._recommender.choices
        known = self._known([each.user for each in wanted])
        best = self._recommender.choices.best(known, known, n, min_ratings)
        together = None
        if self._stars:
            asked = np.maximum(today(self._recommender), known.last_times)
            together = self._stars.sums(known, asked, best.movies)
        for row, each in enumerate(wanted):
            movies = best.movies[row][best.movies[row] >= 0]
            stars = why_stars = why_chosen = intervals = None
            if together:
                stars = together.stars[row, : len(movies)]
                if each.has_reasons and together.are_sums:
                    why_stars = together.explanations(row, movies, self._table.ids)
                if each.level:
                    folded_in = self._fold_in(each.user)
                    intervals = intervals_for(folded_in, self._table.ids[movies], each.level)
            elif self._recommender.rating_model:
                ids, folded_in = self._table.ids[movies], self._fold_in(each.user)
                stars = folded_in.predict(0, ids)
                if each.has_reasons and explains_stars(folded_in):
                    why_stars = folded_in.explain(0, ids)
                if each.level:
                    intervals = intervals_for(folded_in, ids, each.level)
            if each.has_reasons and self._recommender.choices.checkpoint.ease and len(movies):
                own = self._choosing(known.of_users(row, row + 1))
                why_chosen = own.explain_choices(0, self._table.ids[movies])
            scores = best.scores[row, : len(movies)]
            yield Found(movies, scores, stars, why_chosen, why_stars, intervals)

    def _known(self, users: Sequence[NewUser]) -> Interactions:
        rows = np.repeat(np.arange(len(users)), [len(user.movies) for user in users])
        movies, ratings, times = (
            np.concatenate([getattr(user, name) for user in users])
            for name in ("movies", "ratings", "times")
        )
        known = Interactions.of(rows, movies, ratings, times, len(self._table))
        return replace(known, users=np.full(len(users), NEW_USER))

    def _choosing(self, own: Interactions) -> Recommender:
        """The choice model for one of the users."""
        return replace(self._recommender, rating_model=None, is_folded_in=True, own=own)

    def _fold_in(self, user: NewUser) -> Recommender:
        return self._recommender.fold_in(self._table.ids[user.movies], user.ratings, user.times)


def explains_stars(recommender: Recommender) -> bool:
    """Whether predicted ratings are sums with a term for each rating of the user."""
    if recommender.rating_model is None:
        return False
    model = recommender.rating_model.model
    return model.has_attributions and model.is_additive


def intervals_for(
    folded_in: Recommender, movies: Integers, level: float
) -> PredictedIntervals | None:
    """Of ``movies: [N]``, ids, for a new user; None if the model knows none."""
    if folded_in.rating_model is None or folded_in.rating_model.uncertainty is None:
        return None
    return folded_in.predict_intervals(0, movies, level=level)


def today(recommender: Recommender) -> int:
    """Time of ratings without one, in seconds since 1970 UTC."""
    if recommender.today is not None:
        return recommender.today
    return recommender.preprocessor.decay_reference
