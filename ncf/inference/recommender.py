"""Use a trained model, without Ray: predictions, recommendations, similar movies, explanations.

::

    model = ncf.load("artifacts/runs/NAME")
    model.predict(users=[1, 2], movies=[318, 318])     # stars
    model.predict_intervals(users=[1], movies=[318])   # the same with 90 % intervals
    model.recommend(user=42, n=10)                     # what the user is likely to choose
    model.similar(movie=1)                             # the most similar movies
    model.fold_in(movies=[1, 318], ratings=[5, 4])     # a model for a new user
    model.explain(user=42, movies=[1])                 # predictions as sums
    model.explain_choices(user=42, movies=[1])         # why these movies, as sums

Users and movies have the ids of the data set, whole numbers or texts; ``InputError`` refuses
others, and numbers that cannot be ratings or times. What is predicted for a user without training
ratings depends on the movies alone, and a warning is logged; a movie that is not in the catalogue
raises ``UnknownIdError``.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ncf.data.interactions import NEW_USER, Interactions
from ncf.data.preprocessor import UNKNOWN, Integers, MovieTable, Preprocessor
from ncf.errors import CheckpointError, InputError, UnknownIdError, UnsupportedError
from ncf.evaluation.ranking import SeenMovies
from ncf.inference import checkpoint, choice_checkpoint, inputs
from ncf.inference.checkpoint import Checkpoint
from ncf.inference.choices import Choices
from ncf.inference.explanations import Explanation, explanations
from ncf.inference.ids import UNKNOWN_USER, TextIds
from ncf.inference.ordering import DEFAULT_ORDERING, Ordering, OrderName, adjustment
from ncf.inference.results import PredictedIntervals, Recommendations
from ncf.inference.similarity import similarities
from ncf.inference.spread import interval_features, intervals_of
from ncf.inference.stars import combined, member_stars, predicted_stars, rows_to_predict
from ncf.inference.titles import MAX_NAMED, Match, TitleSearch
from ncf.inference.top_k import top_movies
from ncf.models.targets import Objective

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChoiceExplanation:
    """The part of a choice that is a sum: the score of EASE."""

    movie: int | str
    """Id."""
    score: float
    """About 1 for a movie that the user would choose, 0 for others; the sum of the rest."""
    context: float
    """Term of the time of the user's newest rating."""
    rated: npt.NDArray[Any]
    """``[L]`` ids of the movies that the user has rated."""
    ratings: npt.NDArray[np.float32]
    """``[L]`` stars."""
    added: npt.NDArray[np.float32]
    """``[L]`` attributions: what each rating adds to the score."""


FINAL: Final = "checkpoint"
"""Folder of the final model in that of a run."""
CHOICE: Final = "choice"
"""Folder of the choice model in that of the rating model."""


def load(folder: str | Path) -> Recommender:
    """Load the models in a checkpoint's folder: the rating model, the choice model, or both.

    ``folder`` may be that of a run, ``runs/NAME``, too; then it is the run's final model.

    Raises:
        CheckpointError: if a file is missing, damaged or of another version.
    """
    path = _folder_of(Path(folder))
    choices = None
    try:
        has_choices = (path / CHOICE / choice_checkpoint.FILE).exists()
    except (OSError, ValueError) as error:  # no path of a file
        raise CheckpointError(f"cannot read the checkpoint {str(path)[:200]!r}: {error}") from error
    if has_choices:
        choices = Choices(choice_checkpoint.load(path / CHOICE))
    if choices and not (path / checkpoint.FILE).exists():
        return Recommender(None, choices)
    return Recommender(checkpoint.load(path), choices)


def _folder_of(path: Path) -> Path:
    """The folder of the checkpoint: that of the final model, for the folder of a run."""
    try:
        is_checkpoint = (path / checkpoint.FILE).exists() or (path / CHOICE).exists()
        return path if is_checkpoint or not (path / FINAL).is_dir() else path / FINAL
    except (OSError, ValueError):  # no path of a file, which is refused when it is read
        return path


@dataclass(frozen=True, repr=False)
class Recommender:
    """A trained model, which takes and returns the ids of the data set."""

    rating_model: Checkpoint | None
    """Predicts ratings, if there is such a model."""
    choices: Choices | None = None
    """Orders recommendations, if there is a choice model."""
    is_folded_in: bool = False
    """Whether every user id means the user whose ratings were passed to ``fold_in``."""
    today: int | None = None
    """Time of predictions for which no time is passed, in seconds since 1970 UTC; only a model
    that ``uses_time`` depends on it. None is the decay's reference date, by default that of the
    newest training rating."""
    own: Interactions | None = None
    """The ratings that were passed to ``fold_in``."""
    by_number: bool = False
    """Whether ids are the model's numbers also where those of the data are texts."""

    def __repr__(self) -> str:
        """What it consists of, in a few lines."""
        preprocessor = self.preprocessor
        lines = [
            f"{len(self._table):,} movies, {preprocessor.num_users:,} users, ratings from "
            f"{preprocessor.rating_min:g} to {preprocessor.rating_max:g}"
        ]
        if self.rating_model is not None:
            lines.append(f"rating model: {self.rating_model.summary}")
        if self.choices is not None:
            lines.append(f"choice model: {self.choices.checkpoint.config.member}")
        if self.is_folded_in:
            lines.append("for a new user, by the ratings passed to fold_in")
        return "\n  ".join(["<Recommender", *lines]) + ">"

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        return f"<pre>{html.escape(repr(self))}</pre>"

    @property
    def checkpoint(self) -> Checkpoint:
        """The rating model.

        Raises:
            UnsupportedError: if there is none.
        """
        if self.rating_model is None:
            raise UnsupportedError(
                "there is only a choice model here, so no rating can be predicted; train with "
                'task = "both"'
            )
        return self.rating_model

    @property
    def preprocessor(self) -> Preprocessor:
        """Movies, users and scales, which both models share."""
        if self.rating_model:
            return self.rating_model.preprocessor
        assert self.choices
        return self.choices.checkpoint.preprocessor

    def predict(
        self,
        users: npt.ArrayLike,
        movies: npt.ArrayLike,
        times: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.float32]:
        """Ratings in stars, ``[B]``, within the range of the training ratings.

        Args:
            users: ids ``[B]``, or one for all rows.
            movies: ids ``[B]``, or one for all rows.
            times: seconds since 1970 UTC, ``[B]`` or one; by default ``today``.

        Raises:
            UnknownIdError: if a movie is not in the catalogue.
            InputError: if an argument is not what it must be.
        """
        ids, wanted, seconds = _broadcast(
            inputs.whole_numbers(self._user_numbers(users), "users"),
            inputs.whole_numbers(self._movie_numbers(movies), "movies"),
            self._times(times),
        )
        self._report_unknown(ids)
        return self.predict_rows(ids, wanted, seconds)

    def predict_rows(
        self, ids: Integers, wanted: Integers, seconds: Integers | None = None
    ) -> npt.NDArray[np.float32]:
        """As ``predict`` for arrays ``[B]``, without a warning about unknown users."""
        seconds = np.array(self._now) if seconds is None else seconds
        users, movies = self._users(ids), self._movies(wanted)
        rows = rows_to_predict(self.checkpoint.preprocessor, users, movies, seconds)
        return predicted_stars(self.checkpoint, rows).numpy()

    def predict_intervals(
        self,
        users: npt.ArrayLike,
        movies: npt.ArrayLike,
        times: npt.ArrayLike | None = None,
        level: float = 0.9,
    ) -> PredictedIntervals:
        """As ``predict``, with standard deviations, and intervals that hold the share ``level`` of
        ratings: 0.5, 0.8, 0.9 or 0.95.

        Raises:
            UnknownIdError: if a movie is not in the catalogue.
            InputError: if an argument is not what it must be.
            UnsupportedError: if the model was trained without validation rows.
        """
        ids, wanted, seconds = _broadcast(
            inputs.whole_numbers(self._user_numbers(users), "users"),
            inputs.whole_numbers(self._movie_numbers(movies), "movies"),
            self._times(times),
        )
        self._report_unknown(ids)
        return self.interval_rows(ids, wanted, seconds, level)

    def interval_rows(
        self, ids: Integers, wanted: Integers, seconds: Integers | None = None, level: float = 0.9
    ) -> PredictedIntervals:
        """As ``predict_intervals`` for arrays ``[B]``, without a warning about unknown users."""
        seconds = np.array(self._now) if seconds is None else seconds
        users, movies = self._users(ids), self._movies(wanted)
        rows = rows_to_predict(self.checkpoint.preprocessor, users, movies, seconds)
        of_members = member_stars(self.checkpoint, rows)
        stars = combined(self.checkpoint, of_members).numpy()
        known = interval_features(self.checkpoint, rows, of_members)
        found = intervals_of(self.checkpoint, known, stars.astype(np.float64), level)
        ends = (each.astype(np.float32) for each in (found.sd, found.low, found.high))
        return PredictedIntervals(stars, *ends)

    def recommend(
        self,
        user: int | str,
        n: int = 10,
        seen: Collection[int | str] = (),
        ordering: Ordering = DEFAULT_ORDERING,
    ) -> Recommendations:
        """The ``n`` best movies that the user has not rated, by default those that the user is most
        likely to choose next, with the predicted ratings.

        ``seen`` has the ids of further movies to omit. The final model of a run knows all that
        users have rated; other checkpoints without a choice model know their training ratings, and
        these only if they are conditioned on them (``model.history``).

        Raises:
            UnknownIdError: if a movie in ``seen`` is not in the catalogue.
            UnsupportedError: if the models cannot order so.
            InputError: if an argument is not what it must be.
        """
        user = inputs.one_whole_number(self._user_numbers(user), "user")
        n = inputs.one_whole_number(n, "n", lowest=1)
        others = self._movie_numbers(inputs.listed(seen))
        omitted = np.unique(inputs.flat_whole_numbers(others, "seen"))
        self._report_unknown(np.array([user]))
        index = int(self._users(np.array([user]))[0])
        rated = np.union1d(self._movies(omitted), self._seen(user, index))
        if self.order_of(ordering) == "choice":
            return self._most_likely(user, n, rated, ordering)
        return self._top(index, n, rated, ordering)

    def recommend_all(
        self,
        users: Integers,
        n: int = 10,
        seen: SeenMovies | None = None,
        ordering: Ordering = DEFAULT_ORDERING,
    ) -> tuple[Integers, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """As ``recommend``, for ``users: [B]``, user indices; ``seen`` is by these indices.

        Returns:
            ``[B, n]`` positions in the movie table, or -1 after the last movie; their scores, and
            their predicted ratings, NaN after the last movie and without a rating model.

        Raises:
            UnsupportedError: if the models cannot order so.
        """
        if self.order_of(ordering) != "choice":
            assert seen is not None
            adjust = adjustment(ordering, self.checkpoint, self._now)
            ranking = top_movies(self.checkpoint, users, seen, n, self.today, adjust)
            return ranking.movies, ranking.stars, ranking.stars
        assert self.choices
        ids = self.preprocessor.user_ids[users - 1]
        known, rated = self.choices.known_of(ids), self.choices.seen_by(ids)
        best = self.choices.best(known, rated, n, ordering.min_ratings)
        stars = np.full(best.movies.shape, np.nan, np.float32)
        if self.rating_model:
            row, rank = np.nonzero(best.movies >= 0)
            wanted = self._table.ids[best.movies[row, rank]]
            stars[row, rank] = self.predict_rows(ids[row], wanted)
        return best.movies, best.scores, stars

    def order_of(self, ordering: Ordering) -> OrderName:
        """What ``recommend`` orders by.

        Raises:
            UnsupportedError: if there is no choice model to order by.
        """
        if ordering.by == "auto":
            return "choice" if self.choices else "stars"
        if ordering.by == "choice" and self.choices is None:
            raise UnsupportedError(
                'order = "choice" needs a choice model, and there is none here: train with task = '
                '"both", or order by stars'
            )
        return ordering.by

    def similar(self, movie: int | str, n: int = 10) -> Recommendations:
        """The ``n`` movies that are most similar to one, to the model.

        With the Gaussian process the similarity is the correlation of two movies' ratings by its
        kernel; with EASE in the choice model the partial correlation of two movies' choices given
        all others, for movies with three training ratings; with matrix factorisation the cosine of
        the movies' weighted vectors; else the cosine of the vectors of all branches that depend on
        the movie alone.

        Raises:
            UnknownIdError: if the movie is not in the catalogue.
            UnsupportedError: if the model has no vectors of movies.
            InputError: if an argument is not what it must be.
        """
        movie = inputs.one_whole_number(self._movie_numbers(movie), "movie")
        n = inputs.one_whole_number(n, "n", lowest=1)
        (index,) = self._movies(np.array([movie]))
        of_choices = self.choices.similarities(int(index)) if self.choices else None
        if of_choices is not None and not self._has_kernel:
            similarity = of_choices.numpy().copy()
            similarity[self._table.train_counts < DEFAULT_ORDERING.min_ratings] = -1
        else:
            with torch.inference_mode():
                network = self.checkpoint.model.network
                similarity = similarities(network, int(index), len(self._table)).numpy()
        order = np.argsort(-similarity, kind="stable")
        best = order[order != index][:n]
        return self._with_titles(best, similarity[best])

    def fold_in(
        self,
        movies: npt.ArrayLike,
        ratings: npt.ArrayLike,
        times: npt.ArrayLike | None = None,
    ) -> Recommender:
        """The model for a user who is not in the training data, from their ratings.

        Nothing is trained: predictions are conditioned on these ratings. Parameters of single
        users, which are those of the input ``user``, biases and matrix factorisation, are those of
        an unknown user.

        Args:
            movies: ids ``[N]``, each once.
            ratings: stars ``[N]``.
            times: seconds since 1970 UTC, ``[N]``; by default ``today``.

        Raises:
            UnknownIdError: if a movie is not in the catalogue.
            UnsupportedError: if the model has no history encoders.
            InputError: if an argument is not what it must be: ratings off the scale of the training
                data, or a movie that is rated twice, for example.
        """
        preprocessor = self.preprocessor
        wanted, stars, seconds = _broadcast(
            inputs.whole_numbers(self._movie_numbers(movies), "movies"),
            inputs.stars(ratings, preprocessor.rating_min, preprocessor.rating_max),
            self._times(times),
        )
        inputs.each_once(wanted)
        index = self._movies(wanted)
        today = max([self._now, *seconds.tolist()])
        own = None
        if self.choices:
            users = np.full(len(index), NEW_USER)
            own = Interactions.of(users, index, stars, seconds, len(self._table))
            own = own.select([NEW_USER])  # also without any rating
        rating_model = self._conditioned_on(index, stars, seconds)
        return replace(self, rating_model=rating_model, is_folded_in=True, today=today, own=own)

    def _conditioned_on(
        self, index: Integers, stars: npt.NDArray[np.float32], seconds: Integers
    ) -> Checkpoint | None:
        """The rating model for a new user; with a choice model it need not know the user."""
        if self.choices and (self.rating_model is None or not self.takes_ratings):
            return self.rating_model
        if not self.takes_ratings:
            raise UnsupportedError(
                "this model learns a vector for each training user and cannot use the ratings of "
                "a new user without being trained again. A model with model.history.encoders "
                "can, such as that of configs/models/gaussian-process.toml, and so can a choice "
                'model (task = "both"); or ask for the recommendations for an unknown user, which '
                "depend on the movies alone."
            )
        rows = rows_to_predict(self.preprocessor, np.zeros_like(index), index, seconds)
        rows = replace(rows, ratings=torch.from_numpy(stars.copy()))
        experiment = self.checkpoint.experiment
        objective = Objective(experiment.train, experiment.time_decay, self.preprocessor)
        folded_in = self.checkpoint.model.fold_in(objective.training_rows(rows)).eval()
        blend = self.checkpoint.blend
        return replace(self.checkpoint, model=folded_in, blend=blend and blend.fold_in(rows))

    def explain(self, user: int | str, movies: npt.ArrayLike) -> list[Explanation]:
        """The terms whose sums are the predictions for ``movies``, ids ``[B]``; exact.

        Raises:
            UnknownIdError: if a movie is not in the catalogue.
            UnsupportedError: if predictions are no sums, which is so with the ordinal head.
        """
        preprocessor = self.checkpoint.preprocessor
        if not self.checkpoint.model.is_additive:
            raise UnsupportedError(
                "the predictions of a model with the ordinal head are no sums of parts, so there "
                'are no reasons to show; model.head = "regression" has them'
            )
        user = inputs.one_whole_number(self._user_numbers(user), "user")
        index = self._movies(inputs.flat_whole_numbers(self._movie_numbers(movies), "movies"))
        self._report_unknown(np.array([user]))
        (row,) = self._users(np.array([user]))
        rows = rows_to_predict(preprocessor, np.full_like(index, row), index, np.array(self._now))
        return [
            replace(
                why,
                movie=self._given_ids(np.array([why.movie])).tolist()[0],
                rated=self._given_ids(why.rated),
            )
            for why in explanations(self.checkpoint, rows)
        ]

    def explain_choices(self, user: int | str, movies: npt.ArrayLike) -> list[ChoiceExplanation]:
        """Why a user may choose ``movies``, ids ``[B]``: the scores of EASE as sums; exact.

        Raises:
            UnknownIdError: if a movie is not in the catalogue.
            UnsupportedError: if there is no choice model, or the network alone.
        """
        if self.choices is None:
            raise UnsupportedError(
                'there is no choice model here to explain; train with task = "both"'
            )
        user = inputs.one_whole_number(self._user_numbers(user), "user")
        index = self._movies(inputs.flat_whole_numbers(self._movie_numbers(movies), "movies"))
        self._report_unknown(np.array([user]))
        known = self._known(user)
        found = self.choices.attributions(known, index)
        rated = self._given_ids(self._table.ids[known.movies])
        return [
            ChoiceExplanation(
                movie=self._given_ids(self._table.ids[[position]]).tolist()[0],
                score=float(found.scores[i]),
                context=float(found.context[i]),
                rated=rated,
                ratings=known.ratings,
                added=found.added[i],
            )
            for i, position in enumerate(index)
        ]

    def find(self, title: str) -> int | str:
        """The id of the movie that a title means: "The Matrix", "matrix", "lotr 2001".

        See :meth:`TitleSearch.one <ncf.inference.titles.TitleSearch.one>`.

        Raises:
            UnknownIdError: if there is none, with similar titles, or if there are several.
            InputError: if it is no text.
        """
        if not isinstance(title, str):
            raise InputError(f"title: found {type(title).__name__}, expected a text")
        return self._given_ids(self._table.ids[[self._titles.one(title)]]).tolist()[0]

    def search(self, query: str, limit: int = 20) -> list[Match]:
        """Positions in the movie table of movies found by words of their titles, best first.

        See :meth:`TitleSearch.find <ncf.inference.titles.TitleSearch.find>`.
        """
        return self._titles.find(query, limit)

    def title(self, movie: int | str) -> str:
        """The title of a movie; raises as ``predict``."""
        number = inputs.one_whole_number(self._movie_numbers(movie), "movie")
        (index,) = self._movies(np.array([number]))
        return self._table.display_titles[index]

    @property
    def looks_at_times(self) -> bool:
        """Whether predictions depend on the time of the rating."""
        return self.rating_model is not None and self.rating_model.model.uses_time

    @property
    def takes_ratings(self) -> bool:
        """Whether the rating model can use the ratings of a new user."""
        return self.rating_model is not None and self.rating_model.model.uses_history

    @cached_property
    def user_texts(self) -> TextIds | None:
        """The ids of users, if the data have texts."""
        texts = self.preprocessor.external_user_ids
        return None if texts is None else TextIds(self.preprocessor.user_ids, texts)

    @cached_property
    def movie_texts(self) -> TextIds | None:
        """The ids of movies, if the data have texts."""
        texts = self._table.external_ids
        return None if texts is None else TextIds(self._table.ids, texts)

    def _user_numbers(self, users: object) -> object:
        """What was passed as ids of users, with numbers instead of texts."""
        texts = self.user_texts
        if texts is None or self.by_number or self.is_folded_in:
            return users
        return texts.numbers_of(users, unknown=UNKNOWN_USER)

    def _movie_numbers(self, movies: object) -> object:
        """What was passed as ids of movies, with numbers instead of texts."""
        texts = self.movie_texts
        return movies if texts is None or self.by_number else texts.numbers_of(movies)

    def _given_ids(self, numbers: Integers) -> npt.NDArray[Any]:
        """Ids of movies as users know them: the texts of the data, if those are texts."""
        if self.movie_texts is None or self.by_number:
            return numbers
        return np.array(self.movie_texts.texts_of(numbers), dtype=object)

    @cached_property
    def _titles(self) -> TitleSearch:
        return TitleSearch(self._table)

    @property
    def _table(self) -> MovieTable:
        return self.preprocessor.movies

    def _times(self, times: npt.ArrayLike | None) -> Integers:
        newest = self.preprocessor.decay_reference
        return np.array(self._now) if times is None else inputs.seconds(times, newest)

    @property
    def _now(self) -> int:
        return self.preprocessor.decay_reference if self.today is None else self.today

    def _users(self, ids: Integers) -> Integers:
        if self.is_folded_in:
            return np.full_like(ids, UNKNOWN)
        return self.preprocessor.user_index(ids)

    def _report_unknown(self, users: Integers) -> None:
        """Log a warning about users without training ratings."""
        if self.is_folded_in:
            return
        unknown = users[self.preprocessor.user_index(users) == UNKNOWN]
        if len(unknown):
            logger.warning(
                "%d of %d users have no training rating, the first is %s: what is predicted for "
                "them depends on the movies alone. fold_in makes a model for a new user's ratings.",
                len(np.unique(unknown)),
                len(np.unique(users)),
                unknown[0] if self.user_texts is None else "not among the ids of the data",
            )

    def _movies(self, ids: Integers) -> Integers:
        index = self._table.index_of(ids)
        if (index < 0).any():
            absent = [f"{ids[row]} (at position {row})" for row in np.flatnonzero(index < 0)]
            raise UnknownIdError(
                f"{len(absent)} movie ids are not in the model's catalogue of {len(self._table):,} "
                f"movies: {', '.join(absent[:MAX_NAMED])}"
                + (", ..." if len(absent) > MAX_NAMED else "")
            )
        return index

    @property
    def _has_kernel(self) -> bool:
        """Whether the rating model has a Gaussian process."""
        return self.rating_model is not None and self.rating_model.model.has_attributions

    def _known(self, user: int) -> Interactions:
        """The ratings by which the choice model scores a user."""
        assert self.choices
        return self.own if self.own is not None else self.choices.known_of([user])

    def _seen(self, user: int, index: int) -> Integers:
        """``[L]`` positions of the movies that a user has rated, as far as the models know."""
        rated = [np.zeros(0, np.int64)]
        history = self.rating_model.model.history if self.rating_model else None
        if history is not None:
            rated.append(history.movies[history.rows_of(index)].numpy().astype(np.int64))
        if self.rating_model and self.rating_model.rated and index != UNKNOWN:
            rated.append(self.rating_model.rated.by(index).astype(np.int64))
        if self.own is not None:
            rated.append(self.own.movies.astype(np.int64))
        elif self.choices and not self.is_folded_in:
            rated.append(self.choices.seen_by([user]).movies.astype(np.int64))
        return np.concatenate(rated)

    def _most_likely(
        self, user: int, n: int, seen: Integers, ordering: Ordering
    ) -> Recommendations:
        assert self.choices
        known = self._known(user)
        zeros = np.zeros(len(seen), np.int64)
        omitted = Interactions.of(zeros, seen, zeros, zeros, known.num_movies).select([0])
        best = self.choices.best(known, omitted, n, ordering.min_ratings)
        is_movie = best.movies[0] >= 0
        found = self._with_titles(best.movies[0][is_movie], best.scores[0][is_movie])
        users = np.full(len(found.movies), user)
        stars = self.predict_rows(users, found.movies) if self.rating_model else None
        return replace(found, stars=stars)

    def _top(self, user: int, n: int, seen: Integers, ordering: Ordering) -> Recommendations:
        rated = SeenMovies.of(
            np.full(len(seen), user, np.int32),
            seen.astype(np.int32),
            self.preprocessor.num_users,
        )
        adjust = adjustment(ordering, self.checkpoint, self._now)
        users = np.array([user])
        ranking = top_movies(self.checkpoint, users, rated, n, self.today, adjust)
        is_movie = ranking.movies[0] >= 0
        stars = ranking.stars[0][is_movie]
        return replace(self._with_titles(ranking.movies[0][is_movie], stars), stars=stars)

    def _with_titles(self, index: Integers, scores: npt.NDArray[np.float32]) -> Recommendations:
        titles = tuple(self._table.display_titles[i] for i in index)
        ids = self._table.ids[index]
        texts = None if self.movie_texts is None else self.movie_texts.texts_of(ids)
        return Recommendations(ids, titles, scores, external_ids=texts)


def _broadcast(*arrays: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The arrays with one length.

    Raises:
        InputError: if their lengths differ.
    """
    try:
        found = np.broadcast_arrays(*(np.atleast_1d(array) for array in arrays))
    except ValueError as error:
        lengths = ", ".join(str(array.size) for array in arrays)
        raise InputError(f"the arguments have different lengths: {lengths}") from error
    if found[0].ndim != 1:
        raise InputError(f"expected flat lists; found the shape {found[0].shape}")
    return list(found)
