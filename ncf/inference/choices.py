"""A choice model in use: rankings, similar movies, and reasons."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Integers
from ncf.errors import UnsupportedError
from ncf.evaluation.full_ranking import top_unseen
from ncf.inference.choice_checkpoint import ChoiceCheckpoint

Floats = npt.NDArray[np.float32]

_CELLS = 8_000_000
"""Scores that are in memory at once."""


@dataclass(frozen=True)
class BestMovies:
    """The best unseen movies of B users, best first."""

    movies: Integers
    """``[B, N]`` positions in the movie table; -1 after the last one."""
    scores: Floats
    """``[B, N]`` scores of the choice model; NaN after the last one."""


@dataclass(frozen=True)
class ChoiceAttributions:
    """Scores of K movies for one user as sums over the H known ratings."""

    scores: Floats
    """``[K]`` of EASE: the sum of ``context`` and ``added``."""
    context: Floats
    """``[K]`` terms of the time of the newest rating."""
    added: Floats
    """``[K, H]`` terms of the ratings."""


@dataclass(frozen=True)
class Choices:
    """A choice model in use; users and movies have the indices and positions of its tables."""

    checkpoint: ChoiceCheckpoint

    @cached_property
    def train_counts(self) -> Integers:
        """``[M]`` training ratings."""
        return self.checkpoint.preprocessor.movies.train_counts

    def known_of(self, user_ids: npt.ArrayLike) -> Interactions:
        """The ratings by which users are scored."""
        return self.checkpoint.known.select(user_ids)

    def seen_by(self, user_ids: npt.ArrayLike) -> Interactions:
        """All ratings of users in the data set."""
        return self.checkpoint.seen.select(user_ids)

    def best(
        self, known: Interactions, seen: Interactions, n: int, min_ratings: int = 0
    ) -> BestMovies:
        """The ``n`` movies that each user is most likely to choose next.

        Args:
            known: ratings by which the users are scored.
            seen: of the same users, whose movies are left out.
            n: how many.
            min_ratings: training ratings that a movie needs.
        """
        n = min(n, known.num_movies)
        movies = np.full((len(known), n), -1, np.int64)
        scores = np.full((len(known), n), np.nan, np.float32)
        allowed = self.train_counts >= min_ratings if min_ratings else None
        size = max(1, _CELLS // max(1, known.num_movies))
        for start in range(0, len(known), size):
            rows = slice(start, start + size)
            with torch.inference_mode():
                found = self.checkpoint.model.scores(known.of_users(start, start + size))
            best = top_unseen(found, seen.of_users(start, start + size), n, allowed)
            movies[rows] = best
            of_best = np.take_along_axis(found.numpy(), np.maximum(best, 0), axis=1)
            scores[rows] = np.where(best >= 0, of_best, np.nan)
        return BestMovies(movies, scores)

    def similarities(self, movie: int) -> torch.Tensor | None:
        """``[M]`` partial correlation with the movie at this position; None without EASE."""
        ease = self.checkpoint.ease
        return None if ease is None else ease.similarities(movie)

    def attributions(self, known: Interactions, movies: Integers) -> ChoiceAttributions:
        """Why EASE scores ``movies: [K]`` as it does for one user; exact.

        Raises:
            UnsupportedError: if the model is the network alone.
        """
        ease = self.checkpoint.ease
        if ease is None:
            raise UnsupportedError(
                "the scores of the choice network are no sums over ratings, so there are no "
                'reasons to show; choice.member = "ease" or "experts" has them'
            )
        added, context = ease.attributions(known, torch.from_numpy(movies))
        scores = added.sum(dim=1) + context
        return ChoiceAttributions(scores.numpy(), context.numpy(), added.numpy())
