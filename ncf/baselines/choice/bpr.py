"""Matrix factorisation for Bayesian personalised ranking; Rendle et al., 2009,
https://arxiv.org/abs/1205.2618.

A score is a dot product and the movie's bias, x(u, i) = w(u) h(i) + b(i). Each rated movie i is
compared with a movie j that the user did not rate, drawn anew in each epoch with equal
probabilities, and -log sigmoid(x(u, i) - x(u, j)) is minimised by Adagrad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch import nn
from torch.nn.functional import softplus

from ncf.baselines.choice.base import ChoiceBaselineSpec
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Integers, Preprocessor
from ncf.models.choice.base import ChoiceModel

_BATCH: Final = 2048
"""Comparisons in one step."""

_INITIAL_DEVIATION: Final = 0.1
"""Standard deviation of the length of the initial vectors."""

_DRAWS: Final = 50
"""How often a movie is drawn that turns out to be rated, before the comparison is left out. Only of
users who rated almost all movies are any left out."""


@dataclass(frozen=True)
class BprSettings:
    """Settings of Bayesian personalised ranking."""

    dim: int = 64
    """Size of the vectors of users and movies."""
    learning_rate: float = 0.05
    """Of Adagrad."""
    l2: float = 0.01
    """L2 penalty of the vectors and biases in each comparison."""
    epochs: int = 30
    """Passes over the ratings."""
    seed: int = 0
    """Seed of initial vectors, order and drawn movies."""


class Bpr(ChoiceModel):
    """Dot products of users' and movies' vectors, and the movies' biases.

    Users of the training rows have the vectors that were learned, whatever else is known of them.
    The vectors of others are solved for, see ``folded_in``.

    Args:
        users: ``[U]`` ids of the training users, ascending.
        user_vectors: ``[U, D]``.
        movie_vectors: ``[M, D]``.
        movie_biases: ``[M]``.
        l2: as in training.
    """

    def __init__(
        self,
        users: Integers,
        user_vectors: torch.Tensor,
        movie_vectors: torch.Tensor,
        movie_biases: torch.Tensor,
        l2: float,
    ) -> None:
        self.users = users
        self.user_vectors = user_vectors
        self.movie_vectors = movie_vectors
        self.movie_biases = movie_biases
        self.l2 = l2

    def scores(self, known: Interactions) -> torch.Tensor:
        """``[B, M]``; the biases alone for unknown users without ratings."""
        return self.vectors(known) @ self.movie_vectors.T + self.movie_biases

    def vectors(self, known: Interactions) -> torch.Tensor:
        """``[B, D]`` learned or folded in."""
        vectors = self.user_vectors.new_zeros(len(known), self.user_vectors.shape[1])
        is_known = np.isin(known.users, self.users)
        found = np.searchsorted(self.users, known.users[is_known])
        vectors[torch.from_numpy(is_known)] = self.user_vectors[torch.from_numpy(found)]
        strangers = np.flatnonzero(~is_known)
        if len(strangers):
            vectors[torch.from_numpy(strangers)] = self.folded_in(known, strangers)
        return vectors

    def folded_in(self, known: Interactions, positions: Integers) -> torch.Tensor:
        """``[len(positions), D]`` vectors from the ratings of these users; zero without ratings.

        To the second order around 0, -log sigmoid(x) is -x / 2 + x^2 / 8 up to a constant, which
        makes the loss of all comparisons of rated movies with all movies a least-squares problem.
        With z(i) and c(i), the vector and bias of movie i less their means, it is solved by::

            (sum of z(i) z(i)' + n Cov(z) + 4 n l2) w = sum of (2 - c(i)) z(i) - n Cov(z, c)
        """
        z = self.movie_vectors - self.movie_vectors.mean(dim=0)
        c = self.movie_biases - self.movie_biases.mean()
        of_all = z.T @ z / len(z) + 4 * self.l2 * torch.eye(z.shape[1])
        with_bias = z.T @ c / len(z)
        vectors = z.new_zeros(len(positions), z.shape[1])
        for row, at in enumerate(positions):
            rated = torch.from_numpy(known.movies[known.starts[at] : known.starts[at + 1]]).long()
            if len(rated):
                system = z[rated].T @ z[rated] + len(rated) * of_all
                right = z[rated].T @ (2 - c[rated]) - len(rated) * with_bias
                vectors[row] = torch.linalg.solve(system, right)
        return vectors


class _Weights(nn.Module):
    def __init__(self, num_users: int, num_movies: int, settings: BprSettings) -> None:
        super().__init__()
        self.users = nn.Embedding(num_users, settings.dim, sparse=True)
        self.movies = nn.Embedding(num_movies, settings.dim, sparse=True)
        self.biases = nn.Embedding(num_movies, 1, sparse=True)
        random = torch.Generator().manual_seed(settings.seed)
        for vectors in (self.users.weight, self.movies.weight):
            deviation = _INITIAL_DEVIATION / settings.dim**0.5
            nn.init.normal_(vectors, std=deviation, generator=random)
        nn.init.zeros_(self.biases.weight)
        self._l2 = settings.l2

    def loss(self, users: torch.Tensor, rated: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Sum over comparisons ``[B]``; their penalties are halved squares."""
        w, h, other = self.users(users), self.movies(rated), self.movies(drawn)
        b, b_other = self.biases(rated), self.biases(drawn)
        x = (w * (h - other)).sum(dim=1) + (b - b_other)[:, 0]
        squares = sum(part.square().sum() for part in (w, h, other, b, b_other))
        return softplus(-x).sum() + self._l2 / 2 * squares


def bpr(train: Interactions, settings: BprSettings) -> Bpr:
    """Learn vectors and biases from the training ratings."""
    weights = _Weights(len(train), train.num_movies, settings)
    optimizer = torch.optim.Adagrad(weights.parameters(), lr=settings.learning_rate)
    random = np.random.default_rng(settings.seed)
    # Without saying so, PyTorch warns that it does not check the sparse gradients that it made.
    with torch.sparse.check_sparse_tensor_invariants(False):
        for _ in range(settings.epochs):
            for batch in comparisons(train, random).split(_BATCH, dim=1):
                optimizer.zero_grad()
                weights.loss(*batch).backward()
                optimizer.step()
    return Bpr(
        train.users,
        weights.users.weight.detach(),
        weights.movies.weight.detach(),
        weights.biases.weight.detach()[:, 0],
        settings.l2,
    )


def comparisons(train: Interactions, random: np.random.Generator) -> torch.Tensor:
    """``[3, n]`` users' positions, movies that they rated, and movies that they did not.

    One column for each rating, in random order.
    """
    order = random.permutation(train.num_ratings)
    users, rated = train.rows[order], train.movies[order].astype(np.int64)
    known = np.sort(users * train.num_movies + rated)
    drawn = random.integers(0, train.num_movies, len(order))
    (again,) = np.nonzero(_contains(known, users * train.num_movies + drawn))
    for _ in range(_DRAWS):
        drawn[again] = random.integers(0, train.num_movies, len(again))
        again = again[_contains(known, users[again] * train.num_movies + drawn[again])]
    triples = np.delete(np.stack([users, rated, drawn]), again, axis=1)
    return torch.from_numpy(triples)


def _contains(ascending: Integers, wanted: Integers) -> np.ndarray:
    """``[n]`` which of ``wanted`` are in ``ascending``, which has at least one number."""
    places = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return ascending[places] == wanted


def _fit(train: Interactions, preprocessor: Preprocessor, settings: BprSettings) -> Bpr:
    del preprocessor
    return bpr(train, settings)


BPR: Final = ChoiceBaselineSpec[BprSettings](
    "bpr",
    "BPR",
    BprSettings(),
    _fit,
    {
        "dim": IntDistribution(16, 128, log=True),
        "learning_rate": FloatDistribution(0.01, 0.3, log=True),
        "l2": FloatDistribution(0.0003, 0.1, log=True),
        "epochs": IntDistribution(10, 100, log=True),
    },
)
