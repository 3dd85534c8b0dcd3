"""The best movies for users, from a trained model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ncf.checkpoint import Checkpoint

_PAIRS_AT_ONCE = 262_144
"""(user, movie) pairs in one forward pass: bounds memory at any catalogue size."""


@dataclass(frozen=True)
class SeenMovies:
    """Which movies each user has rated, as compressed rows."""

    starts: npt.NDArray[np.int64]
    """``[U + 2]``: user index u has ``movies[starts[u]:starts[u + 1]]``."""
    movies: npt.NDArray[np.int32]
    """``[N]`` positions in the movie table."""

    @classmethod
    def of(
        cls, users: npt.NDArray[np.int32], movies: npt.NDArray[np.int32], num_users: int
    ) -> SeenMovies:
        """From rating rows ``users: [N]`` and ``movies: [N]``."""
        order = np.argsort(users, kind="stable")
        counts = np.bincount(users, minlength=num_users + 1)
        return cls(np.concatenate([[0], np.cumsum(counts)]), movies[order])

    def by(self, user: int) -> npt.NDArray[np.int32]:
        """Positions of the movies that a user index has rated."""
        return self.movies[self.starts[user] : self.starts[user + 1]]


@dataclass(frozen=True)
class Ranking:
    """The best unseen movies of some users, best first."""

    movies: npt.NDArray[np.int64]
    """``[B, N]`` positions in the movie table; -1 past the last unseen movie."""
    stars: npt.NDArray[np.float32]
    """``[B, N]`` predictions in the training target's unit, stars unless that is the decayed
    rating; NaN past the last unseen movie."""


def top_movies(
    checkpoint: Checkpoint, users: npt.NDArray[np.int64], seen: SeenMovies, top_n: int
) -> Ranking:
    """The ``top_n`` movies with the highest predicted rating among those a user has not rated.

    ``users: [B]`` are user indices; ties go to the movie that comes first in the table. Movies
    without any training rating are candidates like all others: their features speak for them.
    """
    num_movies = len(checkpoint.fitted.movies)
    top_n = min(top_n, num_movies)
    movies = np.full((len(users), top_n), -1, dtype=np.int64)
    stars = np.full((len(users), top_n), np.nan, dtype=np.float32)
    users_at_once = max(1, _PAIRS_AT_ONCE // num_movies)
    for start in range(0, len(users), users_at_once):
        block = users[start : start + users_at_once]
        scores = _scores(checkpoint, block)
        for row, user in enumerate(block):
            scores[row, seen.by(int(user))] = -np.inf
            best = np.argsort(-scores[row], kind="stable")[:top_n]
            best = best[np.isfinite(scores[row, best])]
            movies[start + row, : len(best)] = best
            stars[start + row, : len(best)] = scores[row, best]
    fitted = checkpoint.fitted
    if checkpoint.experiment.time_decay.apply_to != "target":
        stars = np.clip(stars, fitted.rating_min, fitted.rating_max)
    return Ranking(movies, stars)


def _scores(checkpoint: Checkpoint, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """``[B, M]`` predictions for today, not clipped: clipping would make ties at five stars."""
    num_movies = len(checkpoint.fitted.movies)
    every_movie = torch.arange(num_movies, dtype=torch.int32)
    pairs_of_users = torch.from_numpy(users.astype(np.int32)).repeat_interleave(num_movies)
    # To a model that looks at times, today is the day from which ages count.
    today = torch.full((len(pairs_of_users),), checkpoint.fitted.decay_reference)
    with torch.inference_mode():
        model = checkpoint.model
        scores = model.point(model(pairs_of_users, every_movie.repeat(len(users)), today))
    return np.array(scores.reshape(len(users), num_movies).numpy())
