"""What recommendations are like, apart from being right: how varied, how well known, how spread."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from ncf.data.interactions import Interactions

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

RARE: Final = 2
"""Most training ratings of a movie that is rarely rated."""


@dataclass(frozen=True)
class Catalogue:
    """What is known of the M movies that can be recommended."""

    train_counts: Integers
    """``[M]`` training ratings."""
    num_users: int
    """Users with training ratings."""
    genres: Bools
    """``[M, G]`` which genres a movie has."""

    @classmethod
    def of(cls, train: Interactions, genres: Bools) -> Catalogue:
        """From the training ratings and ``genres: [M, G]``."""
        return cls(train.movie_counts(), int((train.counts > 0).sum()), genres)


@dataclass(frozen=True)
class Diversity:
    """Figures of all users' recommendations together."""

    coverage: float
    """Share of the catalogue that is recommended to anyone."""
    gini: float
    """Gini index of how often each movie of the catalogue is recommended: 0 if all are equally
    often, 1 if only one ever is. G. Shani and A. Gunawardana, Evaluating Recommendation Systems,
    2011, https://doi.org/10.1007/978-0-387-85820-3_8."""
    log_popularity: float
    """Mean over recommendations of the natural logarithm of 1 + training ratings."""
    novelty: float
    """Mean over recommendations of -log2 of the share of training users who have rated the movie;
    one that nobody has rated counts as rated by one user. T. Zhou et al., Solving the Apparent
    Diversity-Accuracy Dilemma of Recommender Systems, PNAS 107, 2010,
    https://doi.org/10.1073/pnas.1000488107."""
    genre_distance: float | None
    """Mean over users of the mean Jaccard distance between the genres of two recommended movies; 0
    for two without genres. None if nobody has two recommendations. C.-N. Ziegler et al., Improving
    Recommendation Lists Through Topic Diversification, WWW 2005,
    https://doi.org/10.1145/1060745.1060754."""
    rare: float
    """Share of recommendations with at most ``RARE`` training ratings."""

    @classmethod
    def of(cls, ranked: Integers, catalogue: Catalogue) -> Diversity | None:
        """Figures of ``ranked: [B, K]``, positions of movies or -1 for nothing; None if there is no
        movie.
        """
        movies = ranked[ranked >= 0]
        if not len(movies):
            return None
        counts = catalogue.train_counts[movies]
        times = np.bincount(movies, minlength=len(catalogue.train_counts))
        return cls(
            coverage=float((times > 0).mean()),
            gini=gini(times),
            log_popularity=float(np.log1p(counts).mean()),
            novelty=float(-np.log2(np.maximum(counts, 1) / catalogue.num_users).mean()),
            genre_distance=_genre_distance(ranked, catalogue.genres),
            rare=float((counts <= RARE).mean()),
        )


def gini(amounts: npt.NDArray[np.number]) -> float:
    """Gini index of ``amounts: [M]``, not all 0: 0 if all are equal, 1 if one has everything."""
    size = len(amounts)
    if size == 1:
        return 0.0
    weights = 2 * np.arange(1, size + 1, dtype=np.float64) - size - 1
    return float(weights @ np.sort(amounts) / ((size - 1) * amounts.sum()))


def _genre_distance(ranked: Integers, genres: Bools) -> float | None:
    """Mean over users of the mean over pairs of ``ranked: [B, K]``."""
    sums, pairs = np.zeros(len(ranked)), np.zeros(len(ranked))
    for one, other in combinations(ranked.T, 2):
        is_pair = (one >= 0) & (other >= 0)
        sums += np.where(is_pair, _jaccard_distance(genres[one], genres[other]), 0.0)
        pairs += is_pair
    has_pair = pairs > 0
    return float((sums[has_pair] / pairs[has_pair]).mean()) if has_pair.any() else None


def _jaccard_distance(one: Bools, other: Bools) -> Floats:
    """``[B]``: 1 - common / all genres of ``one: [B, G]`` and ``other: [B, G]``."""
    common, either = (one & other).sum(axis=1), (one | other).sum(axis=1)
    return (either - common) / np.maximum(either, 1)
