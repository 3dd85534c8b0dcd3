"""The best movies for users, from a trained model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ncf.checkpoint import Checkpoint
from ncf.grid import grid

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
    checkpoint: Checkpoint,
    users: npt.NDArray[np.int64],
    seen: SeenMovies,
    top_n: int,
    today: int | None = None,
) -> Ranking:
    """The ``top_n`` movies with the highest predicted rating among those a user has not rated.

    ``users: [B]`` are user indices; ties go to the movie that comes first in the table. Movies
    without any training rating are candidates like all others: their features speak for them.
    ``today`` is when a model that looks at times is asked, in seconds since 1970 UTC; by default
    the day from which ages count.
    """
    num_movies = len(checkpoint.fitted.movies)
    top_n = min(top_n, num_movies)
    movies = np.full((len(users), top_n), -1, dtype=np.int64)
    stars = np.full((len(users), top_n), np.nan, dtype=np.float32)
    users_at_once = max(1, _PAIRS_AT_ONCE // num_movies)
    with torch.inference_mode():
        reference = checkpoint.fitted.decay_reference
        pairs = grid(checkpoint.model, num_movies, reference if today is None else today)
        for start in range(0, len(users), users_at_once):
            block = users[start : start + users_at_once]
            # Not clipped: clipping would make ties at five stars.
            scores = pairs.scores(torch.from_numpy(block.astype(np.int64))).contiguous().numpy()
            for row, user in enumerate(block):
                best = _best(scores[row], seen.by(int(user)), top_n)
                movies[start + row, : len(best)] = best
                stars[start + row, : len(best)] = scores[row, best]
    fitted = checkpoint.fitted
    if checkpoint.experiment.time_decay.apply_to != "target":
        stars = np.clip(stars, fitted.rating_min, fitted.rating_max)
    return Ranking(movies, stars)


def _best(
    scores: npt.NDArray[np.float32], seen: npt.NDArray[np.int32], top_n: int
) -> npt.NDArray[np.int64]:
    """Positions of the highest ``scores: [M]`` but for those ``seen``, the highest first."""
    unseen = scores.copy()
    unseen[seen] = -np.inf
    # All that reach the last place's score, so that ties are decided by the order of the table.
    last = np.partition(unseen, -top_n)[-top_n]
    candidates = np.flatnonzero((unseen >= last) & np.isfinite(unseen))
    return candidates[np.argsort(-unseen[candidates], kind="stable")[:top_n]]
