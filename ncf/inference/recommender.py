"""Use a trained model, without Ray: predictions, recommendations, similar movies, explanations.

::

    model = ncf.load("artifacts/runs/NAME/checkpoint")
    model.predict(users=[1, 2], movies=[318, 318])     # stars
    model.recommend(user=42, n=10)                     # the movies with the highest predictions
    model.similar(movie=1)                             # the most similar movies
    model.fold_in(movies=[1, 318], ratings=[5, 4])     # a model for a new user
    model.explain(user=42, movies=[1])                 # predictions as sums

Users and movies have the ids of the data set. Predictions for a user without training ratings
depend on the movie alone; a movie that is not in the catalogue raises ``UnknownIdError``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ncf.data.batches import Batch
from ncf.data.preprocessor import UNKNOWN, Integers, MovieTable, Preprocessor
from ncf.errors import UnknownIdError, UnsupportedError
from ncf.evaluation.predictions import EVALUATION_CHUNK
from ncf.evaluation.ranking import SeenMovies
from ncf.inference import checkpoint
from ncf.inference.checkpoint import Checkpoint
from ncf.inference.similarity import similarities
from ncf.inference.titles import MAX_NAMED, find_title
from ncf.inference.top_k import top_movies
from ncf.models.history.ratings import Ratings
from ncf.models.targets import Objective


@dataclass(frozen=True)
class Recommendations:
    """Movies, best first."""

    movies: Integers
    """``[N]`` ids."""
    titles: tuple[str, ...]
    """``[N]`` as released."""
    scores: npt.NDArray[np.float32]
    """``[N]`` predicted ratings (stars, or decayed if the training target was); for ``similar``
    movies the similarity, at most 1."""


@dataclass(frozen=True)
class Explanation:
    """A prediction as a sum."""

    movie: int
    """Id."""
    prediction: float
    """In the training target's unit and not clipped: the sum of ``base`` and ``added``."""
    base: dict[str, float]
    """Terms of the network (with the mean rating), of the biases of user and movie, and of the
    matrix factorisation, as far as the model has them."""
    rated: Integers
    """``[L]`` ids of the movies in the user's history; none without the Gaussian process."""
    ratings: npt.NDArray[np.float32]
    """``[L]`` their ratings in the training target's unit."""
    added: npt.NDArray[np.float32]
    """``[L]`` attributions: the rating's covariance with the movie times its weight. A weight
    depends on all ratings, so this is not the difference that leaving a rating out would make."""


def load(folder: str | Path) -> Recommender:
    """Load the model in a checkpoint's folder.

    Raises:
        CheckpointError: if a file is missing, damaged or of another version.
    """
    return Recommender(checkpoint.load(Path(folder)))


@dataclass(frozen=True)
class Recommender:
    """A trained model, which takes and returns the ids of the data set."""

    checkpoint: Checkpoint
    is_folded_in: bool = False
    """Whether every user id means the user whose ratings were passed to ``fold_in``."""
    today: int | None = None
    """Time of predictions for which no time is passed, in seconds since 1970 UTC; only a model
    that ``uses_time`` depends on it. None is the decay's reference date, by default that of the
    newest training rating."""

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
        """
        ids, wanted, seconds = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(x, np.int64)) for x in (users, movies, self._time(times)))
        )
        preprocessor = self.checkpoint.preprocessor
        rows = _rows(preprocessor, self._users(ids), self._movies(wanted), seconds)
        experiment = self.checkpoint.experiment
        objective = Objective(experiment.train, experiment.time_decay, preprocessor)
        result = np.empty(len(rows), np.float32)
        model = self.checkpoint.model
        with torch.inference_mode():
            for start in range(0, len(rows), EVALUATION_CHUNK):
                part = rows[start : start + EVALUATION_CHUNK]
                outputs = model.expected_ratings(part.users, part.movies, part.times)
                result[start : start + len(part)] = objective.stars(outputs, part).numpy()
        return result

    def recommend(self, user: int, n: int = 10, seen: Collection[int] = ()) -> Recommendations:
        """The ``n`` movies with the highest predicted rating that the user has not rated.

        ``seen`` has the ids of further movies to omit. A checkpoint has users' training ratings
        only if the model is conditioned on them (``model.history``); for other models, pass all
        movies that the user has rated.

        Raises:
            UnknownIdError: if a movie in ``seen`` is not in the catalogue.
        """
        index = int(self._users(np.array([user]))[0])
        rated = self._movies(np.array(sorted(seen), np.int64))
        return self._top(index, n, np.union1d(rated, self._rated_by(index)))

    def similar(self, movie: int, n: int = 10) -> Recommendations:
        """The ``n`` movies that are most similar to one, to the model.

        With the Gaussian process the similarity is the correlation of two movies' ratings by its
        kernel; with matrix factorisation the cosine of the movies' weighted vectors; else the
        cosine of the vectors of all branches that depend on the movie alone.

        Raises:
            UnknownIdError: if the movie is not in the catalogue.
            UnsupportedError: if the model has no vectors of movies.
        """
        (index,) = self._movies(np.array([movie]))
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
        """
        model, preprocessor = self.checkpoint.model, self.checkpoint.preprocessor
        if not model.uses_history:
            raise UnsupportedError(
                "this model learns a vector for each training user and cannot use the ratings of "
                "a new user without being trained again. A model with model.history.encoders "
                "can, such as that of configs/models/gaussian-process.toml; or ask for the "
                "recommendations for an unknown user, which depend on the movies alone."
            )
        wanted, stars, seconds = np.broadcast_arrays(
            np.asarray(movies, np.int64),
            np.asarray(ratings, np.float32),
            np.asarray(self._time(times), np.int64),
        )
        index = self._movies(wanted)
        rows = _rows(preprocessor, np.zeros_like(index), index, seconds)
        rows = replace(rows, ratings=torch.from_numpy(stars.copy()))
        experiment = self.checkpoint.experiment
        objective = Objective(experiment.train, experiment.time_decay, preprocessor)
        folded_in = model.fold_in(objective.training_rows(rows)).eval()
        today = max([self._now, *seconds.tolist()])
        folded = replace(self.checkpoint, model=folded_in)
        return Recommender(folded, is_folded_in=True, today=today)

    def explain(self, user: int, movies: npt.ArrayLike) -> list[Explanation]:
        """The terms whose sums are the predictions for ``movies``, ids ``[B]``; exact.

        Raises:
            UnknownIdError: if a movie is not in the catalogue.
            UnsupportedError: if predictions are no sums, which is so with the ordinal head.
        """
        model, preprocessor = self.checkpoint.model, self.checkpoint.preprocessor
        if not model.is_additive:
            raise UnsupportedError(
                "the predictions of a model with the ordinal head are no sums of parts, so there "
                'are no reasons to show; model.head = "regression" has them'
            )
        index = self._movies(np.atleast_1d(np.asarray(movies, np.int64)))
        (row,) = self._users(np.array([user]))
        rows = _rows(preprocessor, np.full_like(index, row), index, np.array(self._now))
        with torch.inference_mode():
            terms = model.terms(rows.users, rows.movies, rows.times)
            rated, ratings = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
            added = torch.zeros(len(rows), 0)
            if model.has_attributions:
                history = model.required_history()
                of_user = history.rows_of(int(row))
                rated, ratings = history.movies[of_user], history.targets[of_user]
                added = model.attributions(int(row), Ratings.of(rows.movies, rows.times))
        return [
            Explanation(
                movie=int(self._table.ids[position]),
                prediction=float(sum(p[i] for p in terms.values()) + added[i].sum()),
                base={name: float(part[i]) for name, part in terms.items()},
                rated=self._table.ids[rated.numpy()],
                ratings=ratings.numpy(),
                added=added[i].numpy(),
            )
            for i, position in enumerate(index)
        ]

    def find(self, title: str) -> int:
        """The id of the movie with this title, with or without its year; case is ignored.

        Raises:
            UnknownIdError: if there is none, with similar titles, or if there are several.
        """
        return find_title(self._table, title)

    def title(self, movie: int) -> str:
        """The title of a movie; raises as ``predict``."""
        (index,) = self._movies(np.array([movie]))
        return self._table.titles[index]

    @property
    def looks_at_times(self) -> bool:
        """Whether predictions depend on the time of the rating."""
        return self.checkpoint.model.uses_time

    @property
    def _table(self) -> MovieTable:
        return self.checkpoint.preprocessor.movies

    def _time(self, times: npt.ArrayLike | None) -> npt.ArrayLike:
        return self._now if times is None else times

    @property
    def _now(self) -> int:
        return self.checkpoint.preprocessor.decay_reference if self.today is None else self.today

    def _users(self, ids: Integers) -> Integers:
        if self.is_folded_in:
            return np.full_like(ids, UNKNOWN)
        return self.checkpoint.preprocessor.user_index(ids)

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

    def _rated_by(self, user: int) -> Integers:
        """``[L]`` positions of the movies in the history of a user index, if there is one."""
        history = self.checkpoint.model.history
        if history is None:
            return np.zeros(0, np.int64)
        return history.movies[history.rows_of(user)].numpy().astype(np.int64)

    def _top(self, user: int, n: int, seen: Integers) -> Recommendations:
        rated = SeenMovies.of(
            np.full(len(seen), user, np.int32),
            seen.astype(np.int32),
            self.checkpoint.preprocessor.num_users,
        )
        ranking = top_movies(self.checkpoint, np.array([user]), rated, n, self.today)
        is_movie = ranking.movies[0] >= 0
        return self._with_titles(ranking.movies[0][is_movie], ranking.stars[0][is_movie])

    def _with_titles(self, index: Integers, scores: npt.NDArray[np.float32]) -> Recommendations:
        titles = tuple(self._table.titles[i] for i in index)
        return Recommendations(self._table.ids[index], titles, scores)


def _rows(preprocessor: Preprocessor, users: Integers, movies: Integers, times: Integers) -> Batch:
    """Rows to predict, with ratings of 0: indices ``[B]``, and times ``[B]`` or one for all."""
    seconds = np.broadcast_to(times, users.shape).copy()
    return Batch(
        users=torch.from_numpy(users.astype(np.int32)),
        movies=torch.from_numpy(movies.astype(np.int32)),
        ratings=torch.zeros(len(users)),
        weights=torch.from_numpy(preprocessor.decay_weight(seconds)),
        times=torch.from_numpy(seconds),
    )
