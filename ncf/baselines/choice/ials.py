"""Implicit alternating least squares, as in Rendle et al., Revisiting the Performance of iALS on
Item Recommendation Benchmarks, 2021, https://arxiv.org/abs/2110.14037.

The vectors w of users and h of movies minimise, over the rated pairs S and all pairs::

    sum over S of (w h - 1)^2 + a * (sum over all pairs of (w h)^2)
    + lambda * (sum over users of (n(u) + a M)^nu |w|^2 + sum over movies of (n(i) + a U)^nu |h|^2)

with the unobserved weight a and n ratings of a user or movie. With the vectors of one side fixed,
those of the other are ridge solutions. So is the vector of a new user: one solve folds them in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from scipy import sparse

from ncf.baselines.choice.base import ChoiceBaselineSpec
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Integers, Preprocessor
from ncf.models.choice.base import ChoiceModel

_CELLS: Final = 2_000_000
"""Maximum size of a dense block processed at once."""

_INITIAL_DEVIATION: Final = 0.1
"""Standard deviation of the length of the initial vectors."""


@dataclass(frozen=True)
class IalsSettings:
    """Settings of the alternating least squares."""

    dim: int = 128
    """Size of the vectors of users and movies."""
    regularization: float = 0.01
    """lambda."""
    unobserved_weight: float = 0.1
    """Weight of a pair without a rating; a rated one has 1 more."""
    nu: float = 1.0
    """Power of the number of ratings that the regularisation is scaled by."""
    epochs: int = 16
    """Alternating updates of all users and all movies."""
    seed: int = 0
    """Seed of the initial vectors."""


class Ials(ChoiceModel):
    """Dot products of the movies' vectors with the vector that is solved for each user.

    Args:
        movie_vectors: ``[M, D]``.
        settings: as in training.
    """

    def __init__(self, movie_vectors: torch.Tensor, settings: IalsSettings) -> None:
        self.movie_vectors = movie_vectors
        self.settings = settings

    def scores(self, known: Interactions) -> torch.Tensor:
        """``[B, M]``."""
        return self.user_vectors(known) @ self.movie_vectors.T

    def user_vectors(self, known: Interactions) -> torch.Tensor:
        """``[B, D]`` the best vectors for these ratings; zero for a user without any."""
        return solved(
            known.starts, known.movies.astype(np.int64), self.movie_vectors, self.settings
        )


def ials(train: Interactions, settings: IalsSettings) -> Ials:
    """Alternate between users and movies, from random vectors of the movies."""
    random = np.random.default_rng(settings.seed)
    deviation = _INITIAL_DEVIATION / settings.dim**0.5
    initial = random.normal(0.0, deviation, (train.num_movies, settings.dim))
    return ials_from(train, torch.from_numpy(initial.astype(np.float32)), settings)


def ials_from(train: Interactions, movie_vectors: torch.Tensor, settings: IalsSettings) -> Ials:
    """Alternate between users and movies, from ``movie_vectors: [M, D]``."""
    movies = train.movies.astype(np.int64)
    by_movie = sparse.csr_array(train.matrix().T)
    movie_starts, users = by_movie.indptr.astype(np.int64), by_movie.indices.astype(np.int64)
    for _ in range(settings.epochs):
        user_vectors = solved(train.starts, movies, movie_vectors, settings)
        movie_vectors = solved(movie_starts, users, user_vectors, settings)
    return Ials(movie_vectors, settings)


def solved(
    starts: Integers, others: Integers, fixed: torch.Tensor, settings: IalsSettings
) -> torch.Tensor:
    """``[G, D]`` the best vectors of one side, given those of the other.

    Args:
        starts: ``[G + 1]`` group g has the ratings ``starts[g]:starts[g + 1]``.
        others: ``[N]`` positions on the other side of all ratings.
        fixed: ``[O, D]`` vectors of the other side.
        settings: the weights.
    """
    weight, counts = settings.unobserved_weight, torch.from_numpy(np.diff(starts))
    scale = (counts + weight * len(fixed)).to(fixed.dtype) ** settings.nu
    # In the basis of eigenvectors, what all groups share is diagonal for any penalty.
    shared, basis = torch.linalg.eigh(weight * fixed.T @ fixed)
    diagonals = shared.clamp(min=0) + settings.regularization * scale[:, None]
    rotated = fixed @ basis
    vectors = torch.zeros_like(diagonals)
    for groups, ratings, inside in _blocks(starts, fixed.shape[1]):
        rated = rotated[torch.from_numpy(others[ratings])]
        vectors[groups] = _solutions(diagonals[groups], rated * inside[:, :, None], inside)
    return vectors @ basis.T


def _solutions(diagonals: torch.Tensor, rated: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """``[g, D]``: (diagonal + XᵀX)⁻¹ Xᵀ1 of each group, from the smaller of two systems.

    ``diagonals: [g, D]``; ``rated: [g, L, D]`` has the rows of X, or zeros where ``inside: [g, L]``
    is false.
    """
    ones = inside.to(rated.dtype)[:, :, None]
    if rated.shape[1] >= rated.shape[2]:
        system = rated.mT @ rated + torch.diag_embed(diagonals)
        return _cholesky_solve(system, rated.mT @ ones)[:, :, 0]
    scaled = rated / diagonals[:, None, :]
    system = scaled @ rated.mT + torch.eye(rated.shape[1], dtype=rated.dtype)
    return (scaled.mT @ _cholesky_solve(system, ones))[:, :, 0]


def _cholesky_solve(system: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``[g, n, n], [g, n, 1] -> [g, n, 1]``."""
    return torch.cholesky_solve(right, torch.linalg.cholesky(system))


def _blocks(starts: Integers, dim: int) -> Iterator[tuple[torch.Tensor, Integers, torch.Tensor]]:
    """Groups with ratings ``[g]``, positions of their ratings ``[g, L]``, and which are no padding.

    Groups of similar size are together. A block has at most ``_CELLS`` cells, ``g * L * dim``,
    unless it is a single group.
    """
    lengths = np.diff(starts)
    order = np.argsort(lengths, kind="stable")
    at = int(np.searchsorted(lengths[order], 1))
    while at < len(order):
        # The last group of a block is its largest.
        cells = np.arange(1, len(order) - at + 1) * lengths[order[at:]] * dim
        end = at + max(1, int(np.searchsorted(cells, _CELLS, side="right")))
        block = order[at:end]
        inside = np.arange(lengths[block[-1]]) < lengths[block][:, None]
        ratings = np.where(inside, starts[block][:, None] + np.arange(inside.shape[1]), 0)
        yield torch.from_numpy(block), ratings, torch.from_numpy(inside)
        at = end


def _fit(train: Interactions, preprocessor: Preprocessor, settings: IalsSettings) -> Ials:
    del preprocessor
    return ials(train, settings)


IALS: Final = ChoiceBaselineSpec[IalsSettings](
    "ials",
    "iALS",
    IalsSettings(),
    _fit,
    {
        "dim": IntDistribution(16, 128, log=True),
        "regularization": FloatDistribution(0.001, 0.1, log=True),
        "unobserved_weight": FloatDistribution(0.003, 1.0, log=True),
    },
)
