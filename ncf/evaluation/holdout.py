"""Users with known ratings and held-out ratings, which rankings are scored on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Integers


@dataclass(frozen=True)
class Holdout:
    """The same B users' known and held-out ratings.

    A model ranks, for each user, all movies that are not among the known ones.
    """

    known: Interactions
    """What models may use: every user has at least one."""
    held_out: Interactions
    """What rankings are scored on: every user has at least one."""

    @classmethod
    def of(cls, known: Interactions, held_out: Interactions, num_given: int = 0) -> Holdout:
        """Users who have ratings in both.

        Args:
            known: ratings before.
            held_out: ratings after, or at random.
            num_given: of each user's held-out ratings the oldest so many become known: a user who
                returns, or is new, and rates some movies. Nothing is trained on them.
        """
        given, rest = _oldest(held_out, num_given)
        known = _united(known, given) if num_given else known
        has_both = np.intersect1d(known.users[known.counts > 0], rest.users[rest.counts > 0])
        return cls(_only(known, has_both), _only(rest, has_both))

    def __len__(self) -> int:
        return len(self.known)

    def drawn(self, at_most: int) -> Holdout:
        """All users, or so many drawn at random, the same ones each time."""
        if len(self) <= at_most:
            return self
        users = np.random.default_rng(0).choice(self.known.users, at_most, replace=False)
        users.sort()
        return Holdout(self.known.select(users), self.held_out.select(users))


def _oldest(ratings: Interactions, count: int) -> tuple[Interactions, Interactions]:
    """The oldest ``count`` ratings of each user, and the rest."""
    position = np.arange(ratings.num_ratings) - ratings.starts[ratings.rows]
    return ratings.where(position < count), ratings.where(position >= count)


def _united(first: Interactions, second: Interactions) -> Interactions:
    """The ratings of both."""
    return Interactions.of(
        np.concatenate([first.users[first.rows], second.users[second.rows]]),
        np.concatenate([first.movies, second.movies]),
        np.concatenate([first.ratings, second.ratings]),
        np.concatenate([first.times, second.times]),
        first.num_movies,
    )


def _only(ratings: Interactions, users: Integers) -> Interactions:
    """The ratings of these ``users``, ids in ascending order."""
    is_wanted = np.isin(ratings.users, users)
    rows = ratings.rows
    chosen = is_wanted[rows]
    return Interactions.of(
        ratings.users[rows[chosen]],
        ratings.movies[chosen],
        ratings.ratings[chosen],
        ratings.times[chosen],
        ratings.num_movies,
    )
