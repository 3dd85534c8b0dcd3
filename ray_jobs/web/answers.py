"""Responses of the API, computed by the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from fastapi import HTTPException

from foundation.times import problem as times_problem
from ncf.errors import UnknownIdError, UnsupportedError
from ncf.inference.explanations import Explanation
from ncf.inference.ordering import Ordering
from ncf.inference.recommender import Recommender
from ncf.inference.results import PredictedIntervals
from ray_jobs.web import models
from ray_jobs.web.new_users import Found, NewUser, NewUsers, Wanted, intervals_for, today
from ray_jobs.web.reasons import why, why_chosen
from ray_jobs.web.together import Together

AT_ONCE: Final = 32
"""Users that the choice model scores at once. With more, a user takes hardly less time, and
requests of other kinds wait longer."""


class Answers:
    """Responses of the API."""

    def __init__(self, recommender: Recommender, about: models.ModelInfo) -> None:
        self.about = about
        self._recommender = recommender
        self._movies = recommender.preprocessor.movies
        if recommender.choices:
            self._by_choice = Together(NewUsers(recommender).recommend, AT_ONCE)

    def like(self, movie: int, limit: int) -> models.LikeMovies:
        """Movies similar to one.

        Raises:
            HTTPException: if the movie is unknown.
        """
        try:
            title = self._recommender.title(movie)
        except UnknownIdError as error:
            raise HTTPException(404, str(error)) from error
        best = self._recommender.similar(movie, limit)
        return models.LikeMovies(
            movie=models.Movie(movie_id=movie, title=title),
            similar=tuple(
                models.LikeMovie(movie_id=m, title=title, similarity=similarity)
                for m, title, similarity in zip(
                    best.movies.tolist(), best.titles, best.scores.tolist(), strict=True
                )
            ),
        )

    async def recommended(self, request: models.RecommendationsRequest) -> models.Recommendations:
        """The best movies for a user's ratings; raises as ``predicted``."""
        ordering = Ordering(request.order, request.min_ratings)
        order = self._recommender.order_of(ordering)
        if order == "choice":
            rows = await self._chosen(request)
        else:
            rows = self._by_stars(request, ordering)
        return models.Recommendations(order=order, recommendations=tuple(rows))

    def predicted(self, request: models.PredictionsRequest) -> models.Predictions:
        """Predicted ratings of some movies, for a user's ratings.

        Raises:
            HTTPException: if a movie is unknown or a rating out of range.
            UnsupportedError: if there is no rating model, or it cannot fold in a new user.
        """
        folded_in = self._fold_in(request.ratings)
        movies = np.array(request.movies, np.int64)
        try:
            stars = folded_in.predict(0, movies)
        except UnknownIdError as error:
            raise HTTPException(422, f"movies: {error}") from error
        sums = _sums(folded_in, movies, request.reasons)
        intervals = _intervals(folded_in, movies, request.interval)
        rows = (
            models.Predicted(
                movie_id=movie,
                title=folded_in.title(movie),
                stars=predicted,
                interval=interval,
                reasons=each and why(each, request.reasons, self._movies),
            )
            for movie, predicted, interval, each in zip(
                movies.tolist(), stars.tolist(), intervals, sums, strict=True
            )
        )
        return models.Predictions(predictions=tuple(rows))

    async def _chosen(self, request: models.RecommendationsRequest) -> list[models.Recommended]:
        """The most likely choices."""
        if request.reasons and not self.about.gives_reasons:
            raise UnsupportedError(
                "neither the scores of the choice network nor the predicted ratings of this model "
                "are sums over ratings, so there are no reasons to show; choice.member = "
                '"ease" or "experts" has them'
            )
        user = self._new_user(request.ratings)
        has_reasons, level = bool(request.reasons), request.interval
        wanted = Wanted(user, request.n, request.min_ratings, has_reasons, level)
        return self._rows(await self._by_choice.ask(wanted), request.reasons, level)

    def _rows(self, found: Found, reasons: int, level: float | None) -> list[models.Recommended]:
        nothing = [None] * len(found.movies)
        stars = nothing if found.stars is None else found.stars.tolist()
        return [
            models.Recommended(
                movie_id=int(self._movies.ids[position]),
                title=self._movies.display_titles[position],
                score=score,
                stars=predicted,
                interval=interval,
                reasons=of_stars and why(of_stars, reasons, self._movies),
                choice_reasons=of_choice and why_chosen(of_choice, reasons, self._movies),
            )
            for position, score, predicted, interval, of_stars, of_choice in zip(
                found.movies.tolist(),
                found.scores.tolist(),
                stars,
                _each(found.intervals, level) or nothing,
                found.why_stars or nothing,
                found.why_chosen or nothing,
                strict=True,
            )
        ]

    def _by_stars(
        self, request: models.RecommendationsRequest, ordering: Ordering
    ) -> list[models.Recommended]:
        """The movies that the rating model orders first."""
        folded_in = self._fold_in(request.ratings)
        rated = [own.movie_id for own in request.ratings]
        best = folded_in.recommend(0, request.n, rated, ordering)
        assert best.stars is not None
        sums = _sums(folded_in, best.movies, request.reasons)
        intervals = _intervals(folded_in, best.movies, request.interval)
        return [
            models.Recommended(
                movie_id=movie,
                title=title,
                score=score,
                stars=predicted,
                interval=interval,
                reasons=each and why(each, request.reasons, self._movies),
                choice_reasons=None,
            )
            for movie, title, score, predicted, interval, each in zip(
                best.movies.tolist(),
                best.titles,
                best.scores.tolist(),
                best.stars.tolist(),
                intervals,
                sums,
                strict=True,
            )
        ]

    def _fold_in(self, ratings: Sequence[models.OwnRating]) -> Recommender:
        user = self._new_user(ratings)
        return self._recommender.fold_in(self._movies.ids[user.movies], user.ratings, user.times)

    def _new_user(self, ratings: Sequence[models.OwnRating]) -> NewUser:
        lowest, highest = self.about.rating_min, self.about.rating_max
        for position, own in enumerate(ratings):
            if not lowest <= own.rating <= highest:
                raise HTTPException(
                    422,
                    f"ratings.{position}.rating: found {own.rating:g}, expected a number from "
                    f"{lowest:g} to {highest:g}, as in the training data",
                )
        ids = np.array([own.movie_id for own in ratings])
        stars = np.array([own.rating for own in ratings], np.float32)
        movies = self._movies.index_of(ids)
        if (movies < 0).any():
            try:
                self._recommender.fold_in(ids, stars)
            except UnknownIdError as error:
                raise HTTPException(422, f"ratings: {error}") from error
        now = today(self._recommender)
        times = [now if own.timestamp is None else own.timestamp for own in ratings]
        seconds = np.array(times, np.int64)
        problem = times_problem(seconds, self._recommender.preprocessor.decay_reference)
        if problem is not None:
            raise HTTPException(422, f"ratings.{problem[0]}.timestamp: {problem[1]}")
        return NewUser(movies, stars, seconds)


def _sums(folded_in: Recommender, movies: np.ndarray, reasons: int) -> Sequence[Explanation | None]:
    """The explanation of each prediction, if any are wanted."""
    return folded_in.explain(0, movies) if reasons and len(movies) else [None] * len(movies)


def _intervals(
    folded_in: Recommender, movies: np.ndarray, level: float | None
) -> Sequence[models.Interval | None]:
    """Of each prediction, if they are wanted and known."""
    found = intervals_for(folded_in, movies, level) if level else None
    return _each(found, level) or [None] * len(movies)


def _each(found: PredictedIntervals | None, level: float | None) -> list[models.Interval | None]:
    if found is None or level is None:
        return []
    ends = zip(found.low.tolist(), found.high.tolist(), found.sd.tolist(), strict=True)
    return [
        models.Interval(level=level, low=low, high=high, standard_deviation=sd)
        for low, high, sd in ends
    ]
