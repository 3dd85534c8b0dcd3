"""A trained model in use, without Ray: predictions, recommendations, like movies, and reasons.

::

    model = ncf.load("artifacts/runs/NAME/checkpoint")
    model.predict(users=[1, 2], movies=[318, 318])     # stars
    model.recommend(user=42, n=10)                     # the best movies
    model.similar(movie=1)                             # the most alike movies
    model.newcomer(movies=[1, 318], ratings=[5, 4])    # the same for somebody new
    model.explain(user=42, movies=[1])                 # what a prediction is made of

Users and movies go by the ids of the data set. A user who was not in the training data is predicted
from the movie alone; a movie that is not in the catalogue is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

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
from ncf.inference.top_k import top_movies
from ncf.models.history.ratings import Ratings
from ncf.models.ncf import NCF
from ncf.models.targets import Objective

_NAMED: Final = 5


@dataclass(frozen=True)
class Recommendations:
    """Movies, best first."""

    movies: Integers
    """``[N]`` ids."""
    titles: tuple[str, ...]
    """``[N]`` as released."""
    scores: npt.NDArray[np.float32]
    """``[N]`` predicted rating (stars, unless the target was decayed); of ``similar`` movies the
    likeness, at most 1."""


@dataclass(frozen=True)
class Explanation:
    """A prediction as a sum."""

    movie: int
    """Id."""
    prediction: float
    """In the training target's unit and not clipped: the sum of all that follows."""
    base: dict[str, float]
    """What is said without the Gaussian process: by the network (with the mean rating), the biases
    of user and movie, and the products of their vectors; those of these that the model has."""
    rated: Integers
    """``[L]`` ids of the user's known ratings, none for a model without the Gaussian process."""
    ratings: npt.NDArray[np.float32]
    """``[L]`` in the training target's unit."""
    added: npt.NDArray[np.float32]
    """``[L]`` what each adds: covariance with the movie times the rating's weight. All ratings
    share in the weights, so this is not by how much the prediction would differ without one."""


def load(folder: str | Path) -> Recommender:
    """The model in a checkpoint's folder.

    Raises:
        CheckpointError: if a file is missing, damaged or of another version.
    """
    return Recommender(checkpoint.load(Path(folder)))


@dataclass(frozen=True)
class Recommender:
    """A trained model and whom it is asked about."""

    checkpoint: Checkpoint
    is_folded_in: bool = False
    """Whether everybody is the one whose ratings were given to ``fold_in``."""
    today: int | None = None
    """When predictions are for, in seconds since 1970 UTC, if no time is given; only a model that
    looks at times cares. None is the day from which the ages of ratings count, by default that of
    the newest training rating."""

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
                outputs = model.expected_rating(model(part.users, part.movies, part.times))
                result[start : start + len(part)] = objective.stars(outputs, part).numpy()
        return result

    def recommend(self, user: int, n: int = 10, seen: Collection[int] = ()) -> Recommendations:
        """The ``n`` movies with the highest predicted rating that the user has not rated.

        A checkpoint knows who rated what only if the model's predictions look at it
        (``model.history``). Movies to be left out besides, all of them for other models, are
        named in ``seen``, by id.

        Raises:
            UnknownIdError: if a movie in ``seen`` is not in the catalogue.
        """
        index = int(self._users(np.array([user]))[0])
        rated = self._movies(np.array(sorted(seen), np.int64))
        return self._top(index, n, np.union1d(rated, self._rated_by(index)))

    def similar(self, movie: int, n: int = 10) -> Recommendations:
        """The ``n`` movies most like one, in the model's own eyes.

        With the Gaussian process that is the correlation, by its kernel, of what users feel about
        the two; with factors the cosine of the movies' weighted vectors there; else the cosine of
        all inputs that follow from the movie.

        Raises:
            UnknownIdError: if the movie is not in the catalogue.
            UnsupportedError: if the model knows nothing of movies but their biases.
        """
        (index,) = self._movies(np.array([movie]))
        with torch.inference_mode():
            similarity = _similarity(self.checkpoint.model, int(index), len(self._table)).numpy()
        order = np.argsort(-similarity, kind="stable")
        best = order[order != index][:n]
        return self._described(best, similarity[best])

    def fold_in(
        self,
        movies: npt.ArrayLike,
        ratings: npt.ArrayLike,
        times: npt.ArrayLike | None = None,
    ) -> Recommender:
        """The model for somebody who was not in the training data but has rated movies.

        Nothing is trained: the ratings are put where those of training users are looked up. What
        is learned for each training user alone, the input ``user``, biases and factors, stays
        unknown.

        Args:
            movies: ids ``[N]``, each once.
            ratings: stars ``[N]``.
            times: seconds since 1970 UTC, ``[N]``; by default ``today``.

        Raises:
            UnknownIdError: if a movie is not in the catalogue.
            UnsupportedError: if the model does not look at ratings.
        """
        model, preprocessor = self.checkpoint.model, self.checkpoint.preprocessor
        if not model.uses_history:
            raise UnsupportedError(
                "this model learns a vector for each training user and cannot use the ratings of "
                "somebody new without being trained again. A model with model.history.encoders "
                "can, such as that of configs/models/gaussian-process.toml; or ask for the "
                "recommendations for an unknown user, which rest on the movies alone."
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
        own = model.fold_in(replace(rows, ratings=objective.targets(rows))).eval()
        today = max([self._now, *seconds.tolist()])
        return Recommender(replace(self.checkpoint, model=own), is_folded_in=True, today=today)

    def explain(self, user: int, movies: npt.ArrayLike) -> list[Explanation]:
        """What the predictions for ``movies``, ids ``[B]``, are sums of; exact.

        Raises:
            UnknownIdError: if a movie is not in the catalogue.
            UnsupportedError: if the model's predictions are no sums: with the ordinal head.
        """
        model, preprocessor = self.checkpoint.model, self.checkpoint.preprocessor
        if model.head is not None:
            raise UnsupportedError(
                "the predictions of a model with the ordinal head are no sums of parts, so there "
                'are no reasons to show; model.head = "regression" has them'
            )
        index = self._movies(np.atleast_1d(np.asarray(movies, np.int64)))
        (row,) = self._users(np.array([user]))
        rows = _rows(preprocessor, np.full_like(index, row), index, np.array(self._now))
        with torch.inference_mode():
            base = model.base(rows.users, rows.movies, rows.times)
            added = torch.zeros(len(rows), 0)
            if model.gaussian_process is not None:
                added = model.attributions(int(row), Ratings.of(rows.movies, rows.times))
        known = self._history_of(int(row)) if model.gaussian_process is not None else slice(0, 0)
        history = model.history
        rated = np.zeros(0, np.int64) if history is None else history.movies[known].numpy()
        ratings = np.zeros(0, np.float32) if history is None else history.ratings[known].numpy()
        return [
            Explanation(
                movie=int(self._table.ids[position]),
                prediction=float(sum(p[i] for p in base.values()) + added[i].sum()),
                base={name: float(part[i]) for name, part in base.items()},
                rated=self._table.ids[rated],
                ratings=ratings,
                added=added[i].numpy(),
            )
            for i, position in enumerate(index)
        ]

    def find(self, title: str) -> int:
        """The id of the movie with this title, with or without its year, in any case.

        Raises:
            UnknownIdError: if there is none, with those that come close, or more than one.
        """
        wanted = title.strip().casefold()
        titles = [each.casefold() for each in self._table.titles]
        found = [i for i, each in enumerate(titles) if each == wanted] or [
            # Before no parenthesis stands nothing, which must not be what an empty title finds.
            i
            for i, each in enumerate(titles)
            if wanted and each.rpartition(" (")[0] == wanted
        ]
        if len(found) == 1:
            return int(self._table.ids[found[0]])
        close = found or [
            titles.index(each) for each in difflib.get_close_matches(wanted, titles, _NAMED)
        ]
        named = "; ".join(f"{self._table.titles[i]!r} ({self._table.ids[i]})" for i in close)
        if found:
            raise UnknownIdError(f"{len(found)} movies have the title {title!r}: {named}")
        hint = f"Did you mean {named}?" if named else "No title comes close to it."
        raise UnknownIdError(f"no movie has the title {title!r}. {hint}")

    def title(self, movie: int) -> str:
        """The title of a movie; raises as ``predict``."""
        (index,) = self._movies(np.array([movie]))
        return self._table.titles[index]

    @property
    def looks_at_times(self) -> bool:
        """Whether predictions depend on when they are for."""
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
                f"movies: {', '.join(absent[:_NAMED])}" + (", ..." if len(absent) > _NAMED else "")
            )
        return index

    def _history_of(self, user: int) -> slice:
        history = self.checkpoint.model.history
        assert history is not None
        return slice(int(history.starts[user]), int(history.starts[user + 1]))

    def _rated_by(self, user: int) -> Integers:
        history = self.checkpoint.model.history
        if history is None:
            return np.zeros(0, np.int64)
        return history.movies[self._history_of(user)].numpy().astype(np.int64)

    def _top(self, user: int, n: int, seen: Integers) -> Recommendations:
        rated = SeenMovies.of(
            np.full(len(seen), user, np.int32),
            seen.astype(np.int32),
            self.checkpoint.preprocessor.num_users,
        )
        found = top_movies(self.checkpoint, np.array([user]), rated, n, self.today)
        kept = found.movies[0] >= 0
        return self._described(found.movies[0][kept], found.stars[0][kept])

    def _described(self, index: Integers, scores: npt.NDArray[np.float32]) -> Recommendations:
        titles = tuple(self._table.titles[i] for i in index)
        return Recommendations(self._table.ids[index], titles, scores)


def _rows(preprocessor: Preprocessor, users: Integers, movies: Integers, times: Integers) -> Batch:
    """Rows whose rating is not known: ``[B]`` indices, and times ``[B]`` or one for all."""
    seconds = np.broadcast_to(times, users.shape).copy()
    return Batch(
        users=torch.from_numpy(users.astype(np.int32)),
        movies=torch.from_numpy(movies.astype(np.int32)),
        ratings=torch.zeros(len(users)),
        weights=torch.from_numpy(preprocessor.decay_weight(seconds)),
        times=torch.from_numpy(seconds),
    )


def _similarity(model: NCF, movie: int, num_movies: int) -> torch.Tensor:
    """``[M]`` how much every movie is like one, at most 1."""
    one, movies = torch.tensor([movie]), torch.arange(num_movies)
    if model.gaussian_process is not None:
        return model.gaussian_process.kernel.similarity(one, movies)[0]
    vectors = _vectors(model, movies)
    # A movie of which nothing is known has the zero vector, and is like none.
    return torch.nn.functional.cosine_similarity(vectors[one], vectors)


def _vectors(model: NCF, movies: torch.Tensor) -> torch.Tensor:
    """``[M] -> [M, D]``."""
    if model.gmf is not None:
        return model.gmf.movies(movies) * model.gmf.output.weight
    unknown = torch.zeros_like(movies)
    parts = [
        branch(unknown, movies, None)
        for branch in model.inputs.values()
        if branch.depends_on == "movie" and not branch.uses_time
    ]
    if not parts:
        raise UnsupportedError(
            "this model has no vectors of movies to compare; model.inputs or model.gmf_dim adds "
            "some"
        )
    return torch.cat(parts, dim=1)
