"""Users who choose movies of one of two kinds, for tests; not a test itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ncf.data.interactions import Interactions
from ncf.data.preprocessor import MovieTable, NumericColumn, Preprocessor

YEAR: Final = round(365.25 * 86_400)
FIRST_YEAR: Final = 2000
"""Ratings are of this year and the nine after it."""


@dataclass(frozen=True)
class Clusters:
    """Training ratings, and which movies are of each user's kind."""

    preprocessor: Preprocessor
    train: Interactions
    likes: npt.NDArray[np.bool_]
    """``[U, M]`` whether the movie is of the user's kind."""

    @property
    def is_rated(self) -> npt.NDArray[np.bool_]:
        """``[U, M]``."""
        return self.train.matrix().toarray() > 0

    def hits(self, scores: torch.Tensor) -> float:
        """Share of pairs of movies that the user has not rated, one of his kind and one of the
        other, of which the first has the higher of ``scores: [U, M]``."""
        shares = []
        for row, likes, rated in zip(scores.numpy(), self.likes, self.is_rated, strict=True):
            higher = row[likes & ~rated][:, None] > row[~likes & ~rated]
            shares.append(higher.mean())
        return float(np.mean(shares))


def clusters(num_users: int = 60, num_movies: int = 50, per_user: int = 12) -> Clusters:
    """Each user has rated ``per_user`` movies, one of them not of his kind.

    Nothing but the ratings tells the kinds apart, so vectors have to be learned. The year of the
    first movie is unknown.
    """
    rng = np.random.default_rng(5)
    kind = rng.permutation(num_movies) % 2
    likes = kind == rng.permutation(num_users)[:, None] % 2
    movies = np.stack(
        [
            np.append(
                rng.choice(np.flatnonzero(own), per_user - 1, replace=False),
                rng.choice(np.flatnonzero(~own)),
            )
            for own in likes
        ]
    )
    ids = 10 * np.arange(1, num_users + 1)
    years = rng.integers(1980, 2005, num_movies)
    is_first = np.arange(num_movies) == 0
    train = Interactions.of(
        np.repeat(ids, per_user),
        movies.ravel().astype(np.int32),
        rng.integers(1, 11, movies.size).astype(np.float32) / 2,
        (FIRST_YEAR - 1970) * YEAR + rng.integers(0, 10 * YEAR, movies.size),
        num_movies,
    )
    standardised = np.where(is_first, 0, years - 1990) / 5
    table = MovieTable(
        ids=np.arange(num_movies),
        titles=tuple(f"Movie {number}" for number in range(num_movies)),
        embedding_index=np.arange(1, num_movies + 1),
        genres=rng.random((num_movies, 2)) < 0.5,
        decade=np.where(is_first, 0, 1 + (years - 1980) // 10),
        numeric=standardised[:, None].astype(np.float32),
        train_counts=train.movie_counts(),
    )
    preprocessor = Preprocessor(
        user_ids=ids,
        genres=("Comedy", "Drama"),
        decades=(1980, 1990, 2000),
        numeric=(NumericColumn("year", "none", 1.0, 1990.0, 1990.0, 5.0, indicator=False),),
        rating_mean=3.0,
        rating_min=0.5,
        rating_max=5.0,
        decay_reference=0,
        decay_rate_per_day=0.0,
        movies=table,
    )
    return Clusters(preprocessor, train, likes)


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Give every parameter random values: many are zero at first, which hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
