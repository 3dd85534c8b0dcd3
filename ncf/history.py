"""What a user's other ratings say about one rating: kept ratings, chunks of them, and the encoders.

A rating must never be predicted from itself. In training, each chunk of a user's rows predicts each
of its rows from the others, or from those before it; afterwards, a row is predicted from all
training rows of its user.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from ncf.batches import Batch
from ncf.config import HistoryConfig
from ncf.fitted import FittedState
from ncf.layers import ContentVector

_PAIRS_AT_ONCE: Final = 1 << 23
"""Pairs of ratings whose similarity is in memory at once."""

_QUERIES_AT_ONCE: Final = 1024
"""Rows of one user that are predicted together."""

_SECONDS_PER_DAY: Final = 86_400.0

FIRST_DAYS: Final = (10 / _SECONDS_PER_DAY, 120 / _SECONDS_PER_DAY, 1 / 24, 1.0, 30.0, 600.0)
"""Time scales at the start of training. The shortest are those of a page of movies that somebody
rates from top to bottom."""


@dataclass(frozen=True)
class Ratings:
    """Rows with the time as days, in any arrangement."""

    movies: torch.Tensor
    """``[...]`` position in the movie table."""
    days: torch.Tensor
    """``[...]`` float64, days since 1970 UTC: a float32 would not tell two minutes apart."""

    @classmethod
    def of(cls, movies: torch.Tensor, times: torch.Tensor) -> Ratings:
        """From ``movies: [B]`` and ``times: [B]`` in seconds."""
        return cls(movies.long(), times.double() / _SECONDS_PER_DAY)

    def __getitem__(self, rows: torch.Tensor) -> Ratings:
        return Ratings(self.movies[rows], self.days[rows])

    def at_once(self) -> Ratings:
        """The same with ``days: [..., 1]`` if each group's are all the same.

        They are where a whole catalogue is scored. Time scales then cost nothing for each pair.
        """
        first = self.days[..., :1]
        return Ratings(self.movies, first) if bool((self.days == first).all()) else self


@dataclass(frozen=True)
class Block:
    """Some groups of rows, side by side: ``rows: [C, L]`` are positions, ``mask: [C, L]`` is true
    where there is a row and not padding."""

    groups: torch.Tensor
    rows: torch.Tensor
    mask: torch.Tensor

    def in_time(self, days: torch.Tensor) -> Block:
        """Each group's rows from the oldest to the newest; ``days: [B]`` are those of all rows."""
        order = days[self.rows].where(self.mask, math.inf).argsort(dim=1, stable=True)
        return replace(self, rows=self.rows.gather(1, order))


def blocks(starts: torch.Tensor, pairs_at_once: int = _PAIRS_AT_ONCE) -> Iterator[Block]:
    """Groups of similar length side by side; group g has the rows ``starts[g]:starts[g + 1]``.

    At least half of each block is rows, and its groups have ``pairs_at_once`` pairs of rows at most
    (unless a single group has more). Empty groups are left out.
    """
    lengths = starts.diff()
    order = torch.argsort(lengths, stable=True)
    order = order[lengths[order] > 0]
    first = 0
    while first < len(order):
        shortest = int(lengths[order[first]])
        longest = 2 * shortest
        at_most = max(1, pairs_at_once // (longest * longest))
        last = int(torch.searchsorted(lengths[order], longest, right=True))
        groups = order[first : min(last, first + at_most)]
        first += len(groups)
        width = torch.arange(int(lengths[groups].max()), device=starts.device)
        mask = width < lengths[groups, None]
        rows = torch.where(mask, starts[groups, None] + width, starts[groups, None])
        yield Block(groups, rows, mask)


@dataclass(frozen=True)
class History:
    """Every user's training ratings, the newest ones of users who have very many."""

    starts: torch.Tensor
    """``[U + 2]``: user index u has the rows ``starts[u]:starts[u + 1]``."""
    movies: torch.Tensor
    """``[N]`` int32, position in the movie table."""
    ratings: torch.Tensor
    """``[N]`` float32, in the training target's unit."""
    times: torch.Tensor
    """``[N]`` int64, seconds since 1970 UTC."""

    @classmethod
    def of(cls, rows: Batch, num_users: int, max_ratings: int) -> History:
        """Of training rows, ``max_ratings`` of a user at most."""
        by_time = torch.argsort(rows.times, stable=True)
        order = by_time[torch.argsort(rows.users[by_time], stable=True)]
        users = rows.users[order].long()
        counts = torch.bincount(users, minlength=num_users + 1)
        ends = torch.cumsum(counts, 0)
        from_end = ends[users] - torch.arange(len(users), device=users.device)
        kept = order[from_end <= max_ratings]
        counts = counts.clamp(max=max_ratings)
        starts = torch.cat([counts.new_zeros(1), torch.cumsum(counts, 0)])
        return cls(starts, rows.movies[kept], rows.ratings[kept], rows.times[kept])

    def rows(self) -> Batch:
        """The kept ratings with their users, as rows of weight 1."""
        users = torch.arange(len(self.starts) - 1, device=self.starts.device)
        return Batch(
            users.repeat_interleave(self.starts.diff()).int(),
            self.movies,
            self.ratings,
            torch.ones_like(self.ratings),
            self.times,
        )

    def to_arrow(self) -> pa.Table:
        """The ratings as a table, for ``from_arrow``."""
        rows = self.rows()
        columns = {
            "user_index": rows.users,
            "movie_index": rows.movies,
            "rating": rows.ratings,
            "timestamp": rows.times,
        }
        return pa.table({name: column.cpu().numpy() for name, column in columns.items()})

    @classmethod
    def from_arrow(cls, table: pa.Table, num_users: int) -> History:
        """The ratings that ``to_arrow`` made a table of."""
        weights = np.ones(len(table), np.float32)
        rows = Batch.from_arrow(table.append_column("weight", pa.array(weights)))
        return cls.of(rows, num_users, max_ratings=len(table))


class RatingKernel(nn.Module):
    """How much two ratings of one user have to do with each other.

    A constant (the user's bias), a dot product of the movies' vectors (taste), a radial function of
    the movies' content (taste again, not linear), and functions of the time between the ratings
    that decay: by themselves (mood, sessions) and times the radial one (what one is in the mood
    for).
    """

    def __init__(self, config: HistoryConfig, fitted: FittedState) -> None:
        super().__init__()
        self.vectors = ContentVector(config.vector_dim, fitted, free_std=0.01)
        self.linear = ContentVector(config.linear_dim, fitted, free_std=None)
        self.places = ContentVector(config.radial_dim, fitted, free_std=None, content_std=0.2)
        self.log_constant = nn.Parameter(torch.tensor(math.log(0.15)))
        self.log_radial = nn.Parameter(torch.tensor(math.log(0.1)))
        self.noises = ContentVector(1, fitted, free_std=None, content_std=0.0)
        self.log_noise = nn.Parameter(torch.tensor(math.log(0.6)))
        scales = len(FIRST_DAYS) if config.use_times else 0
        self.log_days = nn.Parameter(torch.tensor(FIRST_DAYS[:scales]).log())
        self.log_mood = nn.Parameter(torch.full((scales,), math.log(0.05)))
        self.log_mood_for_alike = nn.Parameter(torch.full((scales,), math.log(0.05)))

    def describe(self, movies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``movies: [...]`` -> vectors ``[..., D]`` for the dot product, places ``[..., P]``."""
        vectors = torch.cat([self.vectors(movies), self.linear(movies)], dim=-1)
        return vectors, self.places(movies)

    def forward(self, left: Ratings, right: Ratings) -> torch.Tensor:
        """``[C, Q]`` and ``[C, L]`` -> covariances ``[C, Q, L]``; days may be ``at_once``."""
        (vectors, places), (other_vectors, other_places) = (
            self.describe(left.movies),
            self.describe(right.movies),
        )
        result = torch.baddbmm(self.log_constant.exp(), vectors, other_vectors.transpose(1, 2))
        alike = _alike(places, other_places)
        radial = self.log_radial.exp()
        if len(self.log_days):
            apart = (left.days[:, :, None] - right.days[:, None, :]).abs().to(result.dtype)
            for log_days, mood, mood_for_alike in zip(
                self.log_days, self.log_mood.exp(), self.log_mood_for_alike.exp(), strict=True
            ):
                near = torch.exp(-apart / log_days.exp())
                result = result + mood * near
                radial = radial + mood_for_alike * near
        return result + radial * alike

    def taste(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Correlation of what users feel about movies, ``[Q], [L] -> [Q, L]`` from -1 to 1.

        Without what all movies share, such as the user's bias and mood.
        """

        def covariance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            (vectors, places), (others, other_places) = self.describe(one), self.describe(other)
            alike = _alike(places[None], other_places[None])[0]
            return vectors @ others.T + self.log_radial.exp() * alike

        def variance(movies: torch.Tensor) -> torch.Tensor:
            vectors, _ = self.describe(movies)
            return vectors.square().sum(-1) + self.log_radial.exp()

        return covariance(left, right) * torch.rsqrt(variance(left)[:, None] * variance(right))

    def noise(self, movies: torch.Tensor) -> torch.Tensor:
        """Variance of a rating about what the kernel can know: ``[...] -> [...]``.

        It depends on the movie's content: some films divide people who agree otherwise.
        """
        return (self.log_noise + self.noises(movies).squeeze(-1)).exp()


def _alike(places: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Between 0 and 1, by distance: ``[C, Q, P], [C, L, P] -> [C, Q, L]``."""
    # |a - b|^2 in its expanded form, which is a matrix product.
    products = places @ others.transpose(1, 2)
    squares = places.square().sum(-1)[:, :, None] + others.square().sum(-1)[:, None, :]
    return torch.exp(-0.5 * (squares - 2 * products).clamp(min=0))


class ClosedForm(nn.Module):
    """The posterior mean of a Gaussian process over each user's ratings.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equation 2.25,
    https://gaussianprocess.org/gpml/.
    """

    def __init__(self, config: HistoryConfig, fitted: FittedState) -> None:
        super().__init__()
        self.kernel = RatingKernel(config, fitted)
        self._forecasts = config.forecasts

    def within_groups(
        self, rows: Ratings, residuals: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        """What the other rows of its group, or those before it, say about each row's residual.

        ``rows: [B]``, ``residuals: [B]`` and group boundaries ``starts: [C + 1]`` -> ``[B]``.
        """
        result = torch.zeros_like(residuals)
        for group in blocks(starts):
            block = group.in_time(rows.days) if self._forecasts else group
            residual = residuals[block.rows] * block.mask
            covariance = self._noisy_kernel(rows[block.rows], block.mask)
            errors = _forecast_errors if self._forecasts else _leave_one_out_errors
            error = errors(covariance, residual)
            positions = block.rows[block.mask]
            result = result.index_put((positions,), (residual - error)[block.mask])
        return result

    def solve(
        self, history: Ratings, residuals: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        """Weights ``[N]`` of all ratings: inverse covariance times residual, user by user."""
        weights = torch.zeros_like(residuals)
        for block in blocks(starts):
            residual = (residuals[block.rows] * block.mask)[:, :, None]
            matrix = self._noisy_kernel(history[block.rows], block.mask)
            solution = torch.linalg.solve(matrix, residual)[:, :, 0]
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
        for user, queries in _by_user(users[order].long(), order):
            kept = torch.arange(int(starts[user]), int(starts[user + 1]), device=starts.device)
            if len(kept):
                asked = _one(rows[queries]).at_once()
                covariance = self.kernel(asked, _one(history[kept]))[0]
                result[queries] = covariance @ weights[kept]
        return result

    def _noisy_kernel(self, rows: Ratings, mask: torch.Tensor) -> torch.Tensor:
        """``[C, L, L]``, with the identity where there is only padding."""
        both = mask[:, :, None] & mask[:, None, :]
        noise = torch.where(mask, self.kernel.noise(rows.movies), 1.0)
        return self.kernel(rows, rows) * both + torch.diag_embed(noise)


def _leave_one_out_errors(covariance: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Each value minus its expectation given all others: ``[C, L, L]``, ``[C, L]`` -> ``[C, L]``.

    Exact and from a single inverse: equation 5.12 of the same book.
    """
    inverse = torch.linalg.inv(covariance)
    return (inverse @ values[:, :, None])[:, :, 0] / inverse.diagonal(dim1=1, dim2=2)


def _forecast_errors(covariance: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Each value minus its expectation given those before it, in the same shapes.

    They are the innovations, which the Cholesky factor gives for all values at once: with
    ``K = L L'`` and ``L e = y``, the error of value i is ``L[i, i] e[i]``.
    """
    factor = torch.linalg.cholesky(covariance)
    whitened = torch.linalg.solve_triangular(factor, values[:, :, None], upper=False)
    return whitened[:, :, 0] * factor.diagonal(dim1=1, dim2=2)


def _one(rows: Ratings) -> Ratings:
    """The rows as the only group of a block."""
    return Ratings(rows.movies[None], rows.days[None])


def _by_user(users: torch.Tensor, order: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Each user of the sorted ``users: [B]`` with some of the positions in ``order: [B]``."""
    distinct, counts = torch.unique_consecutive(users, return_counts=True)
    parts = torch.split(order, counts.tolist())
    for user, part in zip(distinct.tolist(), parts, strict=True):
        for queries in torch.split(part, _QUERIES_AT_ONCE):
            yield user, queries


class Level(nn.Module):
    """What a movie's rating is expected to be, whoever gives it."""

    def __init__(self, fitted: FittedState) -> None:
        super().__init__()
        self.movies = ContentVector(1, fitted, free_std=0.0)
        self.mean = nn.Parameter(torch.tensor(fitted.rating_mean))

    def forward(self, movies: torch.Tensor) -> torch.Tensor:
        """``[...] -> [...]`` stars."""
        return self.mean + self.movies(movies).squeeze(-1)


@dataclass(frozen=True)
class Scene:
    """Rows to be predicted and the ratings that may say something about them, user by user."""

    queries: Ratings
    """``[C, Q]``."""
    known: Ratings
    """``[C, L]``."""
    residuals: torch.Tensor
    """``[C, L]`` by how much the known ratings are above what was to be expected."""
    mask: torch.Tensor
    """``[C, Q, L]`` which of the known ratings a row may look at."""

    def mean(self, values: torch.Tensor, damping: float) -> torch.Tensor:
        """Damped mean of what a row may look at: ``values: [C, L, D]`` -> ``[C, Q, D]``."""
        weights = self.mask.to(values.dtype)
        return (weights @ values) / (weights.sum(-1, keepdim=True) + damping)


class Encoder(nn.Module, ABC):
    """Turns a ``Scene`` into ``[C, Q, width]``, the inputs of the dense layers."""

    width: int
    reads_ratings = True
    """Whether it looks at the residuals, and not at the movies alone."""

    @abstractmethod
    def forward(self, scene: Scene) -> torch.Tensor:
        """``[C, Q, width]``."""


class Statistics(Encoder):
    """Damped mean residuals: over all ratings, over like movies, and over ratings near in time.

    How near and how alike is learned. Beside each mean stands how many ratings it rests on.
    """

    def __init__(self, config: HistoryConfig, fitted: FittedState) -> None:
        super().__init__()
        self.places = ContentVector(config.vector_dim, fitted, free_std=0.01, content_std=0.2)
        scales = len(FIRST_DAYS) if config.use_times else 0
        self.log_days = nn.Parameter(torch.tensor(FIRST_DAYS[:scales]).log())
        self.log_damping = nn.Parameter(torch.full((2 + 2 * scales,), math.log(3.0)))
        self.width = 2 * len(self.log_damping)

    def forward(self, scene: Scene) -> torch.Tensor:
        """``[C, Q, 2 K]``: K means, then the K logarithms of their weights."""
        near = likeness(self.places, scene)
        weights = [torch.ones_like(near), near]
        if len(self.log_days):
            apart = scene.queries.days[:, :, None] - scene.known.days[:, None, :]
            apart = apart.abs().to(near.dtype)
            for log_days in self.log_days:
                weights += [torch.exp(-apart / log_days.exp())]
                weights += [weights[-1] * near]
        stacked = torch.stack(weights, dim=1) * scene.mask[:, None]
        totals = stacked.sum(-1)
        sums = (stacked * scene.residuals[:, None, None, :]).sum(-1)
        means = sums / (totals + self.log_damping.exp()[:, None])
        return torch.cat([means, torch.log1p(totals) / 4], dim=1).transpose(1, 2)


def likeness(places: ContentVector, scene: Scene) -> torch.Tensor:
    """``[C, Q, L]`` between 0 and 1, by the distance of the movies' places."""
    left, right = places(scene.queries.movies), places(scene.known.movies)
    squares = left.square().sum(-1)[:, :, None] + right.square().sum(-1)[:, None, :]
    return torch.exp(-0.5 * (squares - 2 * left @ right.transpose(1, 2)).clamp(min=0))


class Implicit(Encoder):
    """Mean vector of the other movies a user has rated, whatever the ratings: SVD++'s idea.

    Koren, https://doi.org/10.1145/1401890.1401944.
    """

    reads_ratings = False

    def __init__(self, config: HistoryConfig, fitted: FittedState) -> None:
        super().__init__()
        self.vectors = ContentVector(config.vector_dim, fitted, free_std=0.1)
        self.width = config.vector_dim

    def forward(self, scene: Scene) -> torch.Tensor:
        """``[C, Q, D]``."""
        return scene.mean(self._values(scene), damping=1.0)

    def _values(self, scene: Scene) -> torch.Tensor:
        return self.vectors(scene.known.movies)


class Explicit(Implicit):
    """The same, each movie's vector weighted by the residual, and its product with the movie's own:
    the asymmetric model of the same paper."""

    reads_ratings = True

    def __init__(self, config: HistoryConfig, fitted: FittedState) -> None:
        super().__init__(config, fitted)
        self.movies = ContentVector(config.vector_dim, fitted, free_std=0.1)
        self.width = config.vector_dim + 1

    def forward(self, scene: Scene) -> torch.Tensor:
        """``[C, Q, D + 1]``."""
        taste = super().forward(scene)
        product = (taste * self.movies(scene.queries.movies)).sum(-1, keepdim=True)
        return torch.cat([taste, product], dim=-1)

    def _values(self, scene: Scene) -> torch.Tensor:
        return self.vectors(scene.known.movies) * scene.residuals[:, :, None]


class Transformer(Encoder):
    """One transformer block: the movie attends to the other ratings of the user.

    Vaswani et al., https://arxiv.org/abs/1706.03762, with normalisation before each part. A rating
    near in time gets a learned advantage.
    """

    def __init__(self, config: HistoryConfig, fitted: FittedState) -> None:
        super().__init__()
        dim = config.vector_dim
        self.heads = config.heads
        self.movies = ContentVector(dim, fitted, free_std=0.1, content_std=0.2)
        self.residual = nn.Linear(1, dim)
        self.before_attention, self.before_dense = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)  # a bias would shift all scores alike
        self.mix = nn.Linear(dim, dim)
        self.dense = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.nearness = nn.Parameter(
            torch.zeros(config.heads) if config.use_times else torch.empty(0)
        )
        self.width = dim

    def forward(self, scene: Scene) -> torch.Tensor:
        """``[C, Q, D]``."""
        target = self.movies(scene.queries.movies)
        known = self.movies(scene.known.movies) + self.residual(scene.residuals[:, :, None])
        known = self.before_attention(known)
        query = self._parted(self.query(self.before_attention(target)))
        key, value = self._parted(self.key(known)), self._parted(self.value(known))
        bias = self._bias(scene, query.dtype)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        result = target + self.mix(attended.transpose(1, 2).flatten(2))
        return result + self.dense(self.before_dense(result))

    def _parted(self, vectors: torch.Tensor) -> torch.Tensor:
        """``[C, L, D] -> [C, H, L, D / H]``."""
        return vectors.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _bias(self, scene: Scene, dtype: torch.dtype) -> torch.Tensor:
        """``[C, H, Q, L]`` added to the attention scores; very low where a row must not look."""
        hidden = torch.where(scene.mask, 0.0, -1e9)[:, None].to(dtype)
        if not len(self.nearness):
            return hidden
        apart = scene.queries.days[:, :, None] - scene.known.days[:, None, :]
        distance = torch.log1p(apart.abs()).to(dtype)
        return hidden - nn.functional.softplus(self.nearness)[:, None, None] * distance[:, None]


ENCODERS: Final[dict[str, Callable[[HistoryConfig, FittedState], Encoder]]] = {
    "statistics": Statistics,
    "implicit": Implicit,
    "explicit": Explicit,
    "transformer": Transformer,
}


class HistoryInputs(nn.Module):
    """The configured encoders, over groups of training rows or over whole histories."""

    def __init__(self, config: HistoryConfig, fitted: FittedState) -> None:
        super().__init__()
        names = [name for name in config.encoders if name in ENCODERS]
        encoders = [ENCODERS[name](config, fitted) for name in names]
        self.width = sum(encoder.width for encoder in encoders)
        self.level = Level(fitted) if any(e.reads_ratings for e in encoders) else None
        self.encoders = nn.ModuleList(encoders)
        self._forecasts = config.forecasts

    def within_groups(
        self, rows: Ratings, targets: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        """Inputs from the other rows of each row's group, or from those before it.

        ``[B]`` each -> ``[B, width]``.
        """
        residuals = self._residuals(targets, rows)
        result = residuals.new_zeros(len(targets), self.width)
        for group in blocks(starts):
            block = group.in_time(rows.days) if self._forecasts else group
            square = (block.mask.shape[1],) * 2
            every = torch.ones(square, dtype=torch.bool, device=starts.device)
            before = every.tril(diagonal=-1)
            others = before if self._forecasts else before | before.T
            mask = block.mask[:, :, None] & block.mask[:, None, :] & others
            known = rows[block.rows]
            encoded = self._encode(Scene(known, known, residuals[block.rows], mask))
            result = result.index_put((block.rows[block.mask],), encoded[block.mask])
        return result

    def from_history(self, users: torch.Tensor, rows: Ratings, history: History) -> torch.Tensor:
        """Inputs from all of the users' ratings: ``users``, ``rows: [B]`` -> ``[B, width]``."""
        known = Ratings.of(history.movies, history.times)
        residuals = self._residuals(history.ratings, known)
        result = residuals.new_zeros(len(users), self.width)
        order = torch.argsort(users, stable=True)
        for user, queries in _by_user(users[order].long(), order):
            kept = torch.arange(
                int(history.starts[user]), int(history.starts[user + 1]), device=users.device
            )
            mask = torch.ones(1, len(queries), len(kept), dtype=torch.bool, device=users.device)
            scene = Scene(_one(rows[queries]), _one(known[kept]), residuals[kept][None], mask)
            result[queries] = self._encode(scene)[0]
        return result

    def _residuals(self, ratings: torch.Tensor, rows: Ratings) -> torch.Tensor:
        return ratings if self.level is None else ratings - self.level(rows.movies)

    def _encode(self, scene: Scene) -> torch.Tensor:
        return torch.cat([encoder(scene) for encoder in self.encoders], dim=-1)
