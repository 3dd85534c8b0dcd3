"""Bayesian matrix factorisation of users and movies alone, by Gibbs sampling.

Salakhutdinov and Mnih, Bayesian Probabilistic Matrix Factorization using Markov Chain Monte Carlo,
2008, with the biases as one more factor whose counterpart is 1. A prediction is the mean over many
draws of all factors, so nothing needs regularisation that is tuned; Rendle, Zhang and Koren, On the
Difficulty of Evaluating Baselines, 2019, found it hard to surpass.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file
from scipy.stats import wishart

from ncf.baselines.base import (
    Baseline,
    BaselineSpec,
    movies_of,
    ratings_of,
    squared_error,
    users_of,
)
from ncf.baselines.matrix_factorization import Groups
from ncf.data.batches import Batch
from ncf.data.preprocessor import UNKNOWN, Floats, Integers, Preprocessor

RANKS: Final = (4, 8, 16, 32)
"""Ranks that are tried, if there are validation rows."""

_PRIOR_ROWS: Final = 2.0
"""Strength of the prior mean 0 of the factors, in rows: beta 0 of the paper."""
_PADDING: Final = 1.25
"""Largest number of ratings of a user (or movie) relative to the smallest, to be computed
together; or if there are no more than ``_FEW`` more."""
_FEW: Final = 4
_LARGEST: Final = 500_000_000
"""Bytes of all draws that are kept, which are part of a checkpoint."""
_DRAWS: Final = "draws.safetensors"
_SETTINGS: Final = "settings.json"


@dataclass(frozen=True)
class BayesianSettings:
    """Settings of the sampling."""

    rank: int = 16
    """Factors of every user and movie, beside the bias."""
    warm_up: int = 40
    """Draws that are left out, until they no longer depend on where sampling began."""
    draws: int = 128
    """Draws after that."""
    keep_every: int = 2
    """Of so many draws one is kept, as draws that follow each other are alike; fewer, if all would
    be too large."""
    seed: int = 0
    """Seed of the draws."""


@dataclass(frozen=True)
class Draws:
    """S draws of a sampler of factors of size D, the first of which is the bias."""

    users: npt.NDArray[np.float32]
    """``[S, U + 1, D]``; index 0 has the mean user."""
    movies: npt.NDArray[np.float32]
    """``[S, M, D]``; movies without a rating have the mean movie."""
    noise: npt.NDArray[np.float64]
    """``[S]`` precision of ratings: 1 over their variance."""
    user_mean: npt.NDArray[np.float64]
    """``[S, D]`` mean of the users' factors."""
    user_precision: npt.NDArray[np.float64]
    """``[S, D, D]`` inverse covariance of the users' factors."""


@dataclass(frozen=True)
class BayesianFactorization(Baseline):
    """The mean rating plus biases and the dot product of factors, as the mean over draws."""

    settings: BayesianSettings
    mean: float
    """Mean of all ratings."""
    of_draws: Draws

    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""
        users, movies = users_of(rows), movies_of(rows)
        if self.of_draws.users.shape[1] == 1:  # one new user, with any index
            users = np.zeros_like(users)
        total = np.zeros(len(users))
        for of_users, of_movies in zip(self.of_draws.users, self.of_draws.movies, strict=True):
            p, q = of_users[users], of_movies[movies]
            total += p[:, 0] + q[:, 0] + np.einsum("bk,bk->b", p[:, 1:], q[:, 1:])
        return torch.from_numpy(self.mean + total / len(self.of_draws.users))

    def fold_in(self, rows: Batch) -> BayesianFactorization:
        """The same draws of movies for one new user with the ratings ``rows``: the user's factors
        are their means given these ratings.
        """
        known = self.of_draws
        inputs = known.movies[:, movies_of(rows)].astype(np.float64)  # [S, B, D]
        residuals = ratings_of(rows) - self.mean - inputs[:, :, 0]  # [S, B]
        inputs[:, :, 0] = 1.0
        weighted = inputs.transpose(0, 2, 1) * known.noise[:, None, None]
        prior = known.user_precision @ known.user_mean[:, :, None]
        right = prior + weighted @ residuals[:, :, None]
        found = np.linalg.solve(known.user_precision + weighted @ inputs, right)
        users = found.transpose(0, 2, 1).astype(np.float32)
        return replace(self, of_draws=replace(known, users=users))

    def save(self, folder: Path) -> None:
        """Write the draws and the settings."""
        about = {"name": self.name, "detail": self.detail, "mean": self.mean}
        content = json.dumps({**about, "settings": asdict(self.settings)}, indent=2)
        (folder / _SETTINGS).write_text(content, encoding="utf-8")
        draws = {name: np.ascontiguousarray(value) for name, value in vars(self.of_draws).items()}
        save_file(draws, folder / _DRAWS)


def load_bayesian_factorization(folder: Path, preprocessor: Preprocessor) -> BayesianFactorization:
    """Read what ``BayesianFactorization.save`` wrote.

    Raises:
        ValueError: if the draws are not of this preprocessor's users and movies.
    """
    about = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    draws = Draws(**load_file(folder / _DRAWS))
    expected = preprocessor.num_users + 1, len(preprocessor.movies)
    found = draws.users.shape[1], draws.movies.shape[1]
    if found != expected:
        raise ValueError(f"{_DRAWS} has {found} users and movies instead of {expected}")
    settings = BayesianSettings(**about["settings"])
    return BayesianFactorization(about["name"], about["detail"], settings, about["mean"], draws)


def bayesian_factorization(
    rows: Batch, preprocessor: Preprocessor, settings: BayesianSettings
) -> BayesianFactorization:
    """Draw the factors again and again, and keep some of the draws."""
    has_user = users_of(rows) != UNKNOWN
    users, movies = users_of(rows)[has_user], movies_of(rows)[has_user]
    mean = float(ratings_of(rows).mean())
    sampler = _Sampler(
        users,
        movies,
        ratings_of(rows)[has_user] - mean,
        (preprocessor.num_users + 1, len(preprocessor.movies)),
        settings,
    )
    size = (preprocessor.num_users + 1 + len(preprocessor.movies)) * (settings.rank + 1) * 4
    keep_every = max(settings.keep_every, math.ceil(settings.draws * size / _LARGEST))
    kept = []
    for number in range(settings.warm_up + settings.draws):
        sampler.draw()
        if number >= settings.warm_up and (number - settings.warm_up) % keep_every == 0:
            kept.append(sampler.state())
    draws = Draws(*(np.stack(each) for each in zip(*kept, strict=True)))
    detail = (
        f"rank {settings.rank}, mean of {len(kept)} draws of a Gibbs sampler, every "
        f"{keep_every}. after {settings.warm_up}"
    )
    return BayesianFactorization("Bayesian matrix factorisation", detail, settings, mean, draws)


@dataclass(frozen=True)
class _Part:
    """Users (or movies) with about as many ratings, so that hardly any row is padding."""

    groups: Integers
    """``[g]``"""
    rows: Integers
    """``[g, L]`` the rows of each; N, one after the last, as padding."""


def _parts(groups: Integers, rows: Integers, inside: Floats, padding: int) -> list[_Part]:
    """A block of ``Groups.blocks`` in parts, in its order."""
    lengths = inside.sum(axis=1).astype(np.int64)
    padded = np.where(inside > 0, rows, padding)
    parts, start = [], 0
    while start < len(groups):
        longest = max(lengths[start] * _PADDING, lengths[start] + _FEW)
        end = int(np.searchsorted(lengths, longest, side="right"))
        parts.append(_Part(groups[start:end], padded[start:end, : lengths[end - 1]]))
        start = end
    return parts


class _Side:
    """The factors of the users, or of the movies, and their distribution."""

    def __init__(self, of_rows: Integers, size: int, width: int, random: np.random.Generator):
        groups = Groups.of(of_rows, size)
        self.has_rows = np.diff(groups.starts) > 0
        self.blocks = [_parts(*block, len(of_rows)) for block in groups.blocks(width)]
        self.factors = torch.from_numpy(random.normal(0.0, 0.1, (size, width)))
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.precision = torch.eye(width, dtype=torch.float64)


class _Sampler:
    """One Markov chain over all factors."""

    def __init__(
        self,
        users: Integers,
        movies: Integers,
        residuals: Floats,
        sizes: tuple[int, int],
        settings: BayesianSettings,
    ) -> None:
        self._random = np.random.default_rng(settings.seed)
        self._torch_random = torch.Generator().manual_seed(settings.seed)
        self._rows = users, movies
        self._residuals = residuals
        width = settings.rank + 1
        self._users = _Side(users, sizes[0], width, self._random)
        self._movies = _Side(movies, sizes[1], width, self._random)
        self._noise = 1.0

    def draw(self) -> None:
        """Draw everything once, given all else."""
        users, movies = self._users, self._movies
        of_users, of_movies = self._rows
        for side, other, of_others in ((users, movies, of_movies), (movies, users, of_users)):
            self._draw_distribution(side)
            opposite = other.factors.numpy()[of_others]
            inputs = np.zeros((len(opposite) + 1, opposite.shape[1] + 1))  # the last row is padding
            inputs[:-1, :-1] = opposite
            inputs[:-1, 0] = 1.0  # for the bias
            inputs[:-1, -1] = self._residuals - opposite[:, 0]
            self._draw_factors(side, inputs)
        errors = self._residuals - self._predicted()
        shape, rate = 1 + len(errors) / 2, 1 + float(errors @ errors) / 2
        self._noise = float(self._random.gamma(shape, 1 / rate))

    def _predicted(self) -> Floats:
        """``[N]``"""
        p = self._users.factors.numpy()[self._rows[0]]
        q = self._movies.factors.numpy()[self._rows[1]]
        return p[:, 0] + q[:, 0] + np.einsum("bk,bk->b", p[:, 1:], q[:, 1:])

    def _draw_distribution(self, side: _Side) -> None:
        """Mean and precision of the factors, by a normal-Wishart prior."""
        factors = side.factors.numpy()[side.has_rows]
        number, width = factors.shape
        mean, strength = factors.mean(axis=0), _PRIOR_ROWS + number
        centered = factors - mean
        scatter = (
            np.eye(width)
            + centered.T @ centered
            + _PRIOR_ROWS * number / strength * np.outer(mean, mean)
        )
        scale = np.linalg.inv(scatter)
        precision = wishart.rvs(width + number, (scale + scale.T) / 2, random_state=self._random)
        precision = np.atleast_2d(precision)
        factor = np.linalg.cholesky(np.linalg.inv(strength * precision))
        center = number * mean / strength
        side.mean = torch.from_numpy(center + factor @ self._random.normal(size=width))
        side.precision = torch.from_numpy(precision)

    def _draw_factors(self, side: _Side, inputs: Floats) -> None:
        """Factors of every user (or movie) given the inputs and, in the last column, the targets
        ``[N + 1, D + 1]`` of the other side."""
        prior = side.precision @ side.mean
        side.factors[:] = side.mean
        width = len(prior)
        for block in side.blocks:
            size = sum(len(part.groups) for part in block)
            noise = torch.randn(
                (size, width, 1), dtype=torch.float64, generator=self._torch_random
            ).split([len(part.groups) for part in block])
            for part, of_part in zip(block, noise, strict=True):
                x = inputs[part.rows]
                # Two arrays: of one with itself NumPy computes only half, which takes longer.
                products = torch.from_numpy((x * self._noise).transpose(0, 2, 1) @ x)
                right = prior + products[:, :width, width]
                precision = products[:, :width, :width].add_(side.precision)
                factor = torch.linalg.cholesky(precision)
                mean = torch.cholesky_solve(right[:, :, None], factor)
                drawn = mean + torch.linalg.solve_triangular(factor.mT, of_part, upper=True)
                side.factors[part.groups] = drawn[:, :, 0]

    def state(self) -> tuple[npt.NDArray[np.floating], ...]:
        """The fields of ``Draws``, of the newest draw."""
        users, movies = self._users, self._movies
        return (
            users.factors.numpy().astype(np.float32),
            movies.factors.numpy().astype(np.float32),
            np.array(self._noise),
            users.mean.numpy(),
            users.precision.numpy(),
        )


def best_rank(
    train: Batch,
    validation: Batch | None,
    preprocessor: Preprocessor,
    num_trials: int | None = None,
) -> BayesianSettings:
    """The rank of ``RANKS`` with the lowest error on the validation rows."""
    del num_trials  # more ranks give no other result
    if validation is None:
        return BayesianSettings()

    def error(settings: BayesianSettings) -> float:
        model = bayesian_factorization(train, preprocessor, settings)
        return squared_error(model.predict(validation).numpy(), validation, preprocessor)

    return min((BayesianSettings(rank) for rank in RANKS), key=error)


BAYESIAN_FACTORIZATION: Final = BaselineSpec[BayesianSettings](
    "Bayesian matrix factorisation", best_rank, bayesian_factorization, grid=len(RANKS)
)
