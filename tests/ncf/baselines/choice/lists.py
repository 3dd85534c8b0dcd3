"""Ratings written as lists of movies, for tests of choice baselines; not a test itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ncf.data.interactions import NEW_USER, Interactions

NUM_MOVIES = 30
"""Of ``tastes``, and of the fixture ``preprocessor``."""


def interactions_of(
    movies: Mapping[int, Sequence[int]],
    num_movies: int,
    ratings: Mapping[tuple[int, int], float] | None = None,
    times: Mapping[tuple[int, int], int] | None = None,
) -> Interactions:
    """Each user's movies; 4 stars and time 0 unless they are given by user and movie.

    A user without movies is kept.
    """
    pairs = [(user, movie) for user in sorted(movies) for movie in movies[user]]
    counts = [len(movies[user]) for user in sorted(movies)]
    return Interactions(
        users=np.array(sorted(movies), np.int64),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        movies=np.array([movie for _, movie in pairs], np.int32),
        ratings=np.array([(ratings or {}).get(pair, 4.0) for pair in pairs], np.float32),
        times=np.array([(times or {}).get(pair, 0) for pair in pairs], np.int64),
        num_movies=num_movies,
    )


def tastes(num_users: int = 60) -> tuple[Interactions, Interactions]:
    """Known and held-out movies of users who mostly choose movies of one of two kinds, the odd or
    the even ones, and rather the first ones. The last movie is in no list."""
    random = np.random.default_rng(5)
    known, held_out = {}, {}
    for user in range(num_users):
        movies = np.arange(NUM_MOVIES - 1)
        odds = np.where(movies % 2 == user % 2, 1.0, 0.1) / np.sqrt(movies + 1)
        chosen = random.choice(movies, 4 + user % 10, replace=False, p=odds / odds.sum()).tolist()
        known[100 + user], held_out[100 + user] = chosen[:-2], chosen[-2:]
    return interactions_of(known, NUM_MOVIES), interactions_of(held_out, NUM_MOVIES)


def strangers(known: Interactions) -> Interactions:
    """The same ratings, of users who are not in the data set."""
    return replace(known, users=np.full(len(known), NEW_USER))


def dense(known: Interactions) -> npt.NDArray[np.float64]:
    """``[B, M]`` 1 where a user has rated a movie."""
    return known.matrix().toarray().astype(np.float64)
