"""Biased matrix factorisation by alternating least squares, as LensKit's ``BiasedMF``.

The damped biases are fitted first; their residuals are approximated by the dot product of a user's
and a movie's factors. With the factors of one side fixed, those of each user (or movie) are a ridge
solution whose penalty is proportional to its number n of ratings: ``(Q'Q + n lambda I) p = Q'r``;
Zhou et al., Large-Scale Parallel Collaborative Filtering for the Netflix Prize, 2008.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from ncf.baselines.base import (
    DEFAULT_TRIALS,
    Baseline,
    BaselineSpec,
    movies_of,
    squared_error,
    users_of,
)
from ncf.baselines.bias import Biases, damped_bias
from ncf.baselines.search import best_settings
from ncf.data.batches import Batch
from ncf.data.preprocessor import UNKNOWN, Floats, Integers, Preprocessor

SPACE: Final[Mapping[str, BaseDistribution]] = {
    "factors": IntDistribution(10, 100, log=True),
    "penalty": FloatDistribution(0.02, 0.5, log=True),
    "damping": FloatDistribution(1.0, 25.0, log=True),
}
"""Search space."""

_CELLS: Final = 2_000_000
"""Maximum size of a dense block processed at once."""


@dataclass(frozen=True)
class FactorSettings:
    """Settings of the matrix factorisation."""

    factors: int = 50
    """Length of every user's and movie's vector."""
    penalty: float = 0.1
    """lambda, which is multiplied by the number of ratings."""
    damping: float = 5.0
    """Damping of the user and movie biases."""
    sweeps: int = 10
    """Alternating updates of all movies and all users."""
    seed: int = 0
    """Seed of the initial factors."""


@dataclass(frozen=True)
class MatrixFactorization(Baseline):
    """The bias prediction plus the dot product of two vectors."""

    settings: FactorSettings
    biases: Biases
    """Biases of users and movies, fitted first."""
    user_factors: Floats
    """``[U + 1, K]``; zero for users without a rating, such as index 0."""
    movie_factors: Floats
    """``[M, K]``; zero for movies without a rating."""

    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""
        users, movies = users_of(rows), movies_of(rows)
        products = np.einsum("bk,bk->b", self.user_factors[users], self.movie_factors[movies])
        return torch.from_numpy(self.biases.stars(users, movies) + products)


def matrix_factorization(
    rows: Batch, preprocessor: Preprocessor, settings: FactorSettings
) -> MatrixFactorization:
    """Fit the biases, then factors of their residuals."""
    biases = damped_bias(rows, preprocessor, settings.damping, settings.damping)
    has_user = users_of(rows) != UNKNOWN
    users, movies = users_of(rows)[has_user], movies_of(rows)[has_user]
    residuals = biases.residuals(rows)[has_user]
    random = np.random.default_rng(settings.seed)
    q = random.normal(0.0, 0.1, (len(preprocessor.movies), settings.factors))
    p = random.normal(0.0, 0.1, (preprocessor.num_users + 1, settings.factors))
    by_user, by_movie = Groups.of(users, len(p)), Groups.of(movies, len(q))
    for _ in range(settings.sweeps):
        p = ridge_each(by_user, q[movies], residuals, settings.penalty)
        q = ridge_each(by_movie, p[users], residuals, settings.penalty)
    detail = (
        f"{settings.factors} factors, penalty {settings.penalty:.3g} x ratings, {biases.detail}, "
        f"{settings.sweeps} sweeps of alternating least squares"
    )
    return MatrixFactorization("matrix factorisation", detail, settings, biases, p, q)


def best_factors(
    train: Batch,
    validation: Batch | None,
    preprocessor: Preprocessor,
    num_trials: int = DEFAULT_TRIALS,
) -> FactorSettings:
    """The settings with the lowest error on the validation rows."""
    if validation is None:
        return FactorSettings()

    def error(settings: FactorSettings) -> float:
        model = matrix_factorization(train, preprocessor, settings)
        return squared_error(model.predict(validation).numpy(), validation, preprocessor)

    return best_settings(FactorSettings(), SPACE, error, num_trials)


@dataclass(frozen=True)
class Groups:
    """Rows grouped by user (or movie)."""

    order: Integers
    """``[B]`` rows, with those of each group adjacent."""
    starts: Integers
    """``[G + 1]`` where each group begins in ``order``."""

    @classmethod
    def of(cls, members: Integers, size: int) -> Groups:
        """The groups 0 to ``size - 1`` of ``members: [B]``."""
        starts = np.concatenate([[0], np.cumsum(np.bincount(members, minlength=size))])
        return cls(np.argsort(members, kind="stable"), starts)

    def rows_of(self, group: int) -> Integers:
        """The rows of one group."""
        return self.order[self.starts[group] : self.starts[group + 1]]

    def blocks(self, width: int) -> Iterator[tuple[Integers, Integers, Floats]]:
        """Groups with rows ``[g]``, their rows ``[g, L]`` and 1 for a row, 0 for padding.

        Each block has at most ``_CELLS`` cells, ``g * L * width``, unless it is a single group.
        Groups are in the order of their lengths.
        """
        lengths = np.diff(self.starts)
        groups = np.argsort(lengths, kind="stable")
        start = int(np.searchsorted(lengths[groups], 1))
        while start < len(groups):
            cells = np.arange(1, len(groups) - start + 1) * lengths[groups[start:]] * width
            end = start + max(1, int(np.searchsorted(cells, _CELLS, side="right")))
            block = groups[start:end]
            inside = np.arange(lengths[block].max()) < lengths[block][:, None]
            at = self.starts[block][:, None] + np.arange(inside.shape[1])
            yield block, self.order[np.where(inside, at, 0)], inside.astype(np.float64)
            start = end


def ridge_each(
    groups: Groups, inputs: Floats, targets: Floats, per_row: float, fixed: float = 0.0
) -> Floats:
    """``[G, K]``: the ridge solution of every group; zero for a group without rows.

    ``inputs: [B, K]`` and ``targets: [B]``; the penalty is ``fixed`` plus ``per_row`` times the
    number of the group's rows.
    """
    width = inputs.shape[1]
    solution = np.zeros((len(groups.starts) - 1, width))
    for block, rows, inside in groups.blocks(width):
        x = inputs[rows] * inside[:, :, None]
        y = (targets[rows] * inside)[:, :, None]
        penalty = (fixed + per_row * inside.sum(axis=1))[:, None, None]
        xt = x.transpose(0, 2, 1)
        if x.shape[1] < width:  # the same solution from the smaller of the two systems
            result = xt @ np.linalg.solve(x @ xt + penalty * np.eye(x.shape[1]), y)
        else:
            result = np.linalg.solve(xt @ x + penalty * np.eye(width), xt @ y)
        solution[block] = result[:, :, 0]
    return solution


MATRIX_FACTORIZATION: Final = BaselineSpec[FactorSettings](
    "matrix factorisation", best_factors, matrix_factorization
)
