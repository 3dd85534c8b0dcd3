"""SVD++ and timeSVD++: matrix factorisation that knows which movies a user has rated, and when.

SVD++ predicts ``mean + b_u + b_i + q_i . (p_u + sum of y_j / sqrt(|N(u)|))`` with a second vector
``y_j`` for each movie j in N(u), those that the user has rated. Koren, Factorization meets the
neighborhood, KDD 2008.

timeSVD++ lets the user drift and have days: to the bias of the user it adds ``a_u dev_u(t)`` and a
bias of the user's day, to that of the movie one of the period, to the vector of the user
``v_u dev_u(t)``, with ``dev_u(t) = sign(d) |d|^0.4`` of the days d from the user's mean date.
Koren, Collaborative filtering with temporal dynamics, KDD 2009; without its vectors of single days.
Days without a training rating have no bias; the last period goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np
import torch
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from torch import nn

from ncf.baselines.base import (
    DEFAULT_TRIALS,
    Baseline,
    BaselineSpec,
    movies_of,
    ratings_of,
    squared_error,
    users_of,
)
from ncf.baselines.matrix_factorization import Groups
from ncf.baselines.search import best_settings
from ncf.data.batches import Batch
from ncf.data.preprocessor import UNKNOWN, Floats, Integers, Preprocessor

SPACE: Final[Mapping[str, BaseDistribution]] = {
    "factors": IntDistribution(8, 64, log=True),
    "learning_rate": FloatDistribution(0.005, 0.05, log=True),
    "factor_penalty": FloatDistribution(3.0, 100.0, log=True),
    "bias_penalty": FloatDistribution(0.5, 20.0, log=True),
}
"""Search space; of timeSVD++ also ``day_penalty``."""

_DAY_PENALTIES: Final = FloatDistribution(0.5, 20.0, log=True)

_DAY: Final = 86400.0
_PERIODS: Final = 30
"""Periods with biases of movies, of equal length between the first and the last training rating."""
_DRIFT: Final = 0.4
"""Power of the days from the user's mean date."""

_ROWS_AT_ONCE: Final = 4096


@dataclass(frozen=True)
class SvdppSettings:
    """Settings of both."""

    with_times: bool
    """Whether it is timeSVD++."""
    factors: int = 32
    """Length of every vector."""
    learning_rate: float = 0.02
    """Of Adam, at the beginning; it falls towards 0 as half a cosine."""
    factor_penalty: float = 20.0
    """Ridge penalty of vectors, in the sum of squared errors over all rows."""
    bias_penalty: float = 3.0
    """That of biases of users and movies, and of the drift."""
    day_penalty: float = 5.0
    """That of biases of days and periods."""
    epochs: int = 25
    """Passes over the rows."""
    seed: int = 0
    """Seed of the initial vectors and of the order of the users."""


@dataclass(frozen=True)
class Calendar:
    """Positions in time, as fitted to training rows."""

    start: float
    """Seconds of the first rating."""
    period: float
    """Seconds of a period."""
    mean_days: Floats
    """``[U + 1]`` mean date of each user's ratings in days."""
    scale: float
    """Standard deviation of the drift in the training rows."""
    days: Integers
    """``[D]`` users' days with ratings, ascending, as ``_user_days`` numbers them."""

    @classmethod
    def of(cls, users: Integers, seconds: Floats, num_users: int) -> Calendar:
        """That of training rows: ``users: [B]``, ``seconds: [B]``."""
        counts = np.maximum(np.bincount(users, minlength=num_users), 1)
        days = seconds / _DAY
        mean = np.bincount(users, days, minlength=num_users) / counts
        start, end = (float(seconds.min()), float(seconds.max())) if len(seconds) else (0.0, 0.0)
        known = np.unique(_user_days(users, seconds))
        first = cls(start, max((end - start) / _PERIODS, 1.0), mean, 1.0, known)
        spread = float(first.drift(users, seconds).std()) if len(users) else 0.0
        return replace(first, scale=spread or 1.0)

    def drift(self, users: Integers, seconds: Floats) -> Floats:
        """``[B]`` ``dev_u(t)``, of about unit size; 0 for unknown users."""
        apart = seconds / _DAY - self.mean_days[users]
        found = np.sign(apart) * np.abs(apart) ** _DRIFT / self.scale
        return np.where(users == UNKNOWN, 0.0, found)

    def periods(self, seconds: Floats) -> Integers:
        """``[B]`` the period of each time; before the first and after the last, these."""
        return np.clip((seconds - self.start) // self.period, 0, _PERIODS - 1).astype(np.int64)

    def user_days(self, users: Integers, seconds: Floats) -> Integers:
        """``[B]`` positions in ``days`` from 1, and 0 for days without a training rating."""
        wanted = _user_days(users, seconds)
        at = np.searchsorted(self.days, wanted)
        known = (at < len(self.days)) & (users != UNKNOWN)
        known[known] = self.days[at[known]] == wanted[known]
        return np.where(known, at + 1, 0)


def _user_days(users: Integers, seconds: Floats) -> Integers:
    """``[B]`` a number for each user and day."""
    return (users << 32) + (seconds // _DAY).astype(np.int64)


@dataclass(frozen=True)
class _Rows:
    """``[B]`` each: what a prediction depends on."""

    users: torch.Tensor
    movies: torch.Tensor
    drift: torch.Tensor
    periods: torch.Tensor
    days: torch.Tensor

    @classmethod
    def of(cls, rows: Batch, calendar: Calendar) -> _Rows:
        users, movies = users_of(rows), movies_of(rows)
        seconds = rows.times.numpy().astype(np.float64)
        columns = (
            users,
            movies,
            calendar.drift(users, seconds).astype(np.float32),
            calendar.periods(seconds),
            calendar.user_days(users, seconds),
        )
        return cls(*map(torch.from_numpy, columns))

    def __getitem__(self, at: torch.Tensor) -> _Rows:
        columns = (self.users, self.movies, self.drift, self.periods, self.days)
        return _Rows(*(column[at] for column in columns))


class _Network(nn.Module):
    """The parameters, and predictions minus the mean."""

    def __init__(
        self, num_users: int, num_movies: int, num_days: int, settings: SvdppSettings
    ) -> None:
        super().__init__()
        self._settings = settings
        size = settings.factors

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape))

        def random(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) * 0.1 / math.sqrt(size))

        self.user_bias, self.movie_bias = zeros(num_users), zeros(num_movies)
        self.p, self.q = random(num_users, size), random(num_movies, size)
        self.y = random(num_movies, size)
        if settings.with_times:
            self.slope, self.p_slope = zeros(num_users), zeros(num_users, size)
            self.day_bias, self.period_bias = zeros(num_days + 1), zeros(num_movies, _PERIODS)

    def forward(self, rows: _Rows, implicit: torch.Tensor) -> torch.Tensor:
        """``[B]``; ``implicit: [B, K]`` is the sum of ``y`` of each row's user."""
        taste = self.p[rows.users] + implicit
        found = self.user_bias[rows.users] + self.movie_bias[rows.movies]
        if self._settings.with_times:
            taste = taste + self.p_slope[rows.users] * rows.drift[:, None]
            found = found + self.slope[rows.users] * rows.drift + self.day_bias[rows.days]
            found = found + self.period_bias[rows.movies, rows.periods]
        return found + (self.q[rows.movies] * taste).sum(dim=1)

    def penalty(self) -> torch.Tensor:
        """Sum of all ridge penalties."""
        settings, vectors, biases = self._settings, [self.p, self.q, self.y], [self.user_bias]
        biases.append(self.movie_bias)
        total = torch.zeros(())
        if settings.with_times:
            vectors.append(self.p_slope)
            biases.append(self.slope)
            days = self.day_bias.square().sum() + self.period_bias.square().sum()
            total = settings.day_penalty * days
        total = total + settings.factor_penalty * sum(each.square().sum() for each in vectors)
        return total + settings.bias_penalty * sum(each.square().sum() for each in biases)

    @torch.no_grad()
    def forget(self, users: torch.Tensor, movies: torch.Tensor) -> None:
        """Set the parameters to zero of what has no training row: masks ``[U + 1]``, ``[M]``."""
        for name, table in self.named_parameters():
            if name == "day_bias":
                table[0] = 0.0
            else:
                table[movies if name in ("movie_bias", "q", "y", "period_bias") else users] = 0.0


@dataclass(frozen=True)
class Svdpp(Baseline):
    """SVD++, or timeSVD++."""

    mean: float
    """Mean training rating."""
    calendar: Calendar
    network: _Network
    implicit: torch.Tensor = field(repr=False)
    """``[U + 1, K]`` sums of ``y``."""

    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""
        found = _Rows.of(rows, self.calendar)
        with torch.inference_mode():
            return self.mean + self.network(found, self.implicit[found.users]).double()


def svdpp(rows: Batch, preprocessor: Preprocessor, settings: SvdppSettings) -> Svdpp:
    """Fit all parameters by Adam; each step has all ratings of some users."""
    rows = rows[torch.from_numpy(np.flatnonzero(users_of(rows) != UNKNOWN))]
    num_users, num_movies = preprocessor.num_users + 1, len(preprocessor.movies)
    users = users_of(rows)
    calendar = Calendar.of(users, rows.times.numpy().astype(np.float64), num_users)
    inputs = _Rows.of(rows, calendar)
    mean = float(ratings_of(rows).mean()) if len(rows) else preprocessor.rating_mean
    targets = (rows.ratings.double() - mean).float()
    by_user = Groups.of(users, num_users)
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(settings.seed)
        network = _Network(num_users, num_movies, len(calendar.days), settings)
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
    num_users_with_rows = int(np.count_nonzero(np.diff(by_user.starts)))
    num_steps = settings.epochs * min(math.ceil(len(rows) / _ROWS_AT_ONCE), num_users_with_rows)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(num_steps, 1))
    for _ in range(settings.epochs):
        for at in _batches(by_user, generator):
            batch = inputs[at]
            error = network(batch, _implicit(network.y, batch)) - targets[at]
            loss = error.square().mean() + network.penalty() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    movies = np.bincount(movies_of(rows), minlength=num_movies) == 0
    unknown = np.diff(by_user.starts) == 0
    network.forget(torch.from_numpy(unknown), torch.from_numpy(movies))
    of_user = torch.zeros(num_users, settings.factors)
    with torch.no_grad():
        of_user[inputs.users] = _implicit(network.y, inputs)
    return Svdpp(_name(settings), _detail(settings), mean, calendar, network, of_user)


def _batches(by_user: Groups, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Rows of users in random order, until there are at least ``_ROWS_AT_ONCE``."""
    part, size = list[Integers](), 0
    for user in torch.randperm(len(by_user.starts) - 1, generator=generator).tolist():
        part.append(by_user.rows_of(user))
        size += len(part[-1])
        if size >= _ROWS_AT_ONCE:
            yield torch.from_numpy(np.concatenate(part))
            part, size = [], 0
    if size:
        yield torch.from_numpy(np.concatenate(part))


def _implicit(y: torch.Tensor, rows: _Rows) -> torch.Tensor:
    """``[B, K]`` of each row's user; ``rows`` have all ratings of their users."""
    users, at, counts = torch.unique(rows.users, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(users), y.shape[1]).index_add(0, at, y[rows.movies])
    return (sums / counts.sqrt()[:, None])[at]


def best_svdpp(
    train: Batch,
    validation: Batch | None,
    preprocessor: Preprocessor,
    num_trials: int = DEFAULT_TRIALS,
    *,
    with_times: bool,
) -> SvdppSettings:
    """The settings with the lowest error on the validation rows."""
    default = SvdppSettings(with_times)
    if validation is None:
        return default

    def error(settings: SvdppSettings) -> float:
        model = svdpp(train, preprocessor, settings)
        return squared_error(model.predict(validation).numpy(), validation, preprocessor)

    space = {**SPACE, "day_penalty": _DAY_PENALTIES} if with_times else SPACE
    return best_settings(default, space, error, num_trials)


def _name(settings: SvdppSettings) -> str:
    return "timeSVD++" if settings.with_times else "SVD++"


def _detail(settings: SvdppSettings) -> str:
    days = f", {settings.day_penalty:.3g} of days and periods" if settings.with_times else ""
    return (
        f"{settings.factors} factors, penalties {settings.factor_penalty:.3g} of vectors, "
        f"{settings.bias_penalty:.3g} of biases{days}, {settings.epochs} epochs of Adam from "
        f"{settings.learning_rate:.3g}"
    )


def _spec(with_times: bool) -> BaselineSpec[SvdppSettings]:
    name = _name(SvdppSettings(with_times))
    return BaselineSpec(name, partial(best_svdpp, with_times=with_times), svdpp)


SVDPP: Final = _spec(with_times=False)
TIME_SVDPP: Final = _spec(with_times=True)
