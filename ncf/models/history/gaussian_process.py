"""A Gaussian process over each user's ratings: kernel, leave-one-out training, posterior mean."""

from __future__ import annotations

import math

import torch
from torch import nn

from ncf.config import HistoryConfig
from ncf.data.preprocessor import Preprocessor
from ncf.models.history.ratings import INITIAL_TIME_SCALES, Ratings, as_one_group, blocks, by_user
from ncf.models.layers import ContentVector
from ncf.models.linalg import inverse, solve


class RatingKernel(nn.Module):
    """The covariance of two ratings of one user.

    It is the sum of a constant (the user's bias), a dot product of the movies' vectors, a radial
    function of the movies' content, and temporal kernels, which decay with the time between the
    ratings; each of these is also multiplied by the radial function.
    """

    def __init__(self, config: HistoryConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.vectors = ContentVector(config.vector_dim, preprocessor, free_std=0.01)
        self.linear = ContentVector(config.linear_dim, preprocessor, free_std=None)
        self.rbf_features = ContentVector(
            config.rbf_dim, preprocessor, free_std=None, content_std=0.2
        )
        self.log_constant = nn.Parameter(torch.tensor(math.log(0.15)))
        self.log_radial = nn.Parameter(torch.tensor(math.log(0.1)))
        self.noises = ContentVector(1, preprocessor, free_std=None, content_std=0.0)
        self.log_noise = nn.Parameter(torch.tensor(math.log(0.6)))
        scales = len(INITIAL_TIME_SCALES) if config.use_times else 0
        self.log_days = nn.Parameter(torch.tensor(INITIAL_TIME_SCALES[:scales]).log())
        self.log_temporal = nn.Parameter(torch.full((scales,), math.log(0.05)))
        self.log_temporal_similar = nn.Parameter(torch.full((scales,), math.log(0.05)))

    def describe(self, movies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of the dot product and RBF features: ``[...] -> [..., D], [..., P]``."""
        vectors = torch.cat([self.vectors(movies), self.linear(movies)], dim=-1)
        return vectors, self.rbf_features(movies)

    def forward(self, left: Ratings, right: Ratings) -> torch.Tensor:
        """``[C, Q]`` and ``[C, L]`` -> covariances ``[C, Q, L]``; days may be ``at_once``."""
        (vectors, rbf_features), (other_vectors, other_rbf_features) = (
            self.describe(left.movies),
            self.describe(right.movies),
        )
        result = torch.baddbmm(self.log_constant.exp(), vectors, other_vectors.transpose(1, 2))
        similar = _radial(rbf_features, other_rbf_features)
        radial = self.log_radial.exp()
        if len(self.log_days):
            apart = (left.days[:, :, None] - right.days[:, None, :]).abs().to(result.dtype)
            for log_days, temporal, temporal_similar in zip(
                self.log_days, self.log_temporal.exp(), self.log_temporal_similar.exp(), strict=True
            ):
                near = torch.exp(-apart / log_days.exp())
                result = result + temporal * near
                radial = radial + temporal_similar * near
        return result + radial * similar

    def similarity(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Correlation of two movies' ratings, ``[Q], [L] -> [Q, L]`` from -1 to 1.

        Terms that are the same for all movies are left out: the constant and the temporal kernels.
        """

        def covariance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            (vectors, rbf_features), (others, other_rbf_features) = (
                self.describe(one),
                self.describe(other),
            )
            similar = _radial(rbf_features[None], other_rbf_features[None])[0]
            return vectors @ others.T + self.log_radial.exp() * similar

        def variance(movies: torch.Tensor) -> torch.Tensor:
            vectors, _ = self.describe(movies)
            return vectors.square().sum(-1) + self.log_radial.exp()

        return covariance(left, right) * torch.rsqrt(variance(left)[:, None] * variance(right))

    def noise(self, movies: torch.Tensor) -> torch.Tensor:
        """Variance of a rating's noise: ``[...] -> [...]``.

        It depends on the movie's content, as some kinds of movies are rated less predictably.
        """
        return (self.log_noise + self.noises(movies).squeeze(-1)).exp()


def _radial(rbf_features: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The radial basis function, from 0 to 1: ``[C, Q, P], [C, L, P] -> [C, Q, L]``."""
    # |a - b|^2 in its expanded form, which needs only a matrix product.
    products = rbf_features @ others.transpose(1, 2)
    squares = rbf_features.square().sum(-1)[:, :, None] + others.square().sum(-1)[:, None, :]
    return torch.exp(-0.5 * (squares - 2 * products).clamp(min=0))


class GaussianProcess(nn.Module):
    """The posterior mean of a Gaussian process over each user's ratings.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equation 2.25,
    https://gaussianprocess.org/gpml/.
    """

    def __init__(self, config: HistoryConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.kernel = RatingKernel(config, preprocessor)
        self._causal = config.causal

    def within_groups(
        self, rows: Ratings, residuals: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        """Predict each row's residual from the other rows of its group, or from those before it.

        ``rows: [B]``, ``residuals: [B]`` and group boundaries ``starts: [C + 1]`` -> ``[B]``.
        """
        result = torch.zeros_like(residuals)
        for group in blocks(starts):
            block = group.in_time(rows.days) if self._causal else group
            residual = residuals[block.rows] * block.mask
            covariance = self._noisy_kernel(rows[block.rows], block.mask)
            errors = _innovations if self._causal else _leave_one_out_errors
            error = errors(covariance, residual)
            positions = block.rows[block.mask]
            result = result.index_put((positions,), (residual - error)[block.mask])
        return result

    def solve(
        self, history: Ratings, residuals: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        """Weights ``[N]`` of all ratings: inverse covariance times residual, for each user."""
        weights = torch.zeros_like(residuals)
        for block in blocks(starts):
            residual = (residuals[block.rows] * block.mask)[:, :, None]
            matrix = self._noisy_kernel(history[block.rows], block.mask)
            solution = solve(matrix, residual)[:, :, 0]
            weights[block.rows[block.mask]] = solution[block.mask]
        return weights

    def posterior(
        self,
        users: torch.Tensor,
        rows: Ratings,
        history: Ratings,
        weights: torch.Tensor,
        starts: torch.Tensor,
    ) -> torch.Tensor:
        """Posterior mean of each row's residual: ``users: [B]``, ``rows: [B]`` -> ``[B]``.

        ``history: [N]``, its ``weights: [N]`` and boundaries ``starts: [U + 2]`` are those of all
        users; a user without ratings gets 0.
        """
        result = torch.zeros(len(users), dtype=weights.dtype, device=weights.device)
        order = torch.argsort(users, stable=True)
        for user, queries in by_user(users[order].long(), order):
            of_user = torch.arange(int(starts[user]), int(starts[user + 1]), device=starts.device)
            if len(of_user):
                targets = as_one_group(rows[queries]).at_once()
                covariance = self.kernel(targets, as_one_group(history[of_user]))[0]
                result[queries] = covariance @ weights[of_user]
        return result

    def variances(self, rows: Ratings, history: Ratings) -> torch.Tensor:
        """Posterior variance of each row's residual, without its noise: ``rows: [Q]`` -> ``[Q]``.

        ``history: [L]`` are the ratings of one user. Equation 2.26 of the book.
        """
        each = Ratings(rows.movies[:, None], rows.days[:, None])
        prior = self.kernel(each, each)[:, 0, 0]
        if not len(history.movies):
            return prior
        group = as_one_group(history)
        mask = torch.ones_like(group.movies, dtype=torch.bool)
        factor = torch.linalg.cholesky(self._noisy_kernel(group, mask)[0])
        covariance = self.kernel(as_one_group(rows).at_once(), group)[0]
        explained = torch.linalg.solve_triangular(factor, covariance.T, upper=False)
        # Rounding may make the variance of a movie that the user knows negative.
        return (prior - explained.square().sum(dim=0)).clamp(min=0)

    def _noisy_kernel(self, rows: Ratings, mask: torch.Tensor) -> torch.Tensor:
        """``[C, L, L]`` covariance with noise; the identity for padding."""
        both = mask[:, :, None] & mask[:, None, :]
        noise = torch.where(mask, self.kernel.noise(rows.movies), 1.0)
        return self.kernel(rows, rows) * both + torch.diag_embed(noise)


def _leave_one_out_errors(covariance: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Each value minus its expectation given all others: ``[C, L, L]``, ``[C, L]`` -> ``[C, L]``.

    Exact and from a single inverse: equation 5.12 of the same book.
    """
    precision = inverse(covariance)
    return (precision @ values[:, :, None])[:, :, 0] / precision.diagonal(dim1=1, dim2=2)


def _innovations(covariance: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Each value minus its expectation given those before it, in the same shapes.

    These are the innovations, which follow from the Cholesky factor for all values at once: with
    ``K = L L'`` and ``L e = y``, the error of value i is ``L[i, i] e[i]``.
    """
    factor = torch.linalg.cholesky(covariance)
    whitened = torch.linalg.solve_triangular(factor, values[:, :, None], upper=False)
    return whitened[:, :, 0] * factor.diagonal(dim1=1, dim2=2)
