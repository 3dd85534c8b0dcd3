"""Encoders of a user's rating history, whose outputs are inputs of the dense layers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from ncf.config import HistoryConfig
from ncf.data.preprocessor import Preprocessor
from ncf.models.history.ratings import (
    INITIAL_TIME_SCALES,
    History,
    Ratings,
    as_one_group,
    blocks,
    by_user,
)
from ncf.models.layers import ContentVector


class MovieMean(nn.Module):
    """The expected rating of a movie, independent of the user."""

    def __init__(self, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.movies = ContentVector(1, preprocessor, free_std=0.0, l2_group="bias")
        self.mean = nn.Parameter(torch.tensor(preprocessor.rating_mean))

    def forward(self, movies: torch.Tensor) -> torch.Tensor:
        """``[...] -> [...]`` stars."""
        return self.mean + self.movies(movies).squeeze(-1)


@dataclass(frozen=True)
class EncoderInput:
    """Rows to predict, and the histories that they are predicted from, in C groups."""

    queries: Ratings
    """``[C, Q]`` rows to predict."""
    history: Ratings
    """``[C, L]`` ratings of the same user."""
    residuals: torch.Tensor
    """``[C, L]`` ratings of the history minus their expected values."""
    mask: torch.Tensor
    """``[C, Q, L]`` which ratings of the history each query may use."""

    def mean(self, values: torch.Tensor, damping: float) -> torch.Tensor:
        """Damped mean over the ratings that each query may use: ``[C, L, D] -> [C, Q, D]``."""
        weights = self.mask.to(values.dtype)
        return (weights @ values) / (weights.sum(-1, keepdim=True) + damping)


class Encoder(nn.Module, ABC):
    """Encodes histories as ``[C, Q, width]``, inputs of the dense layers."""

    width: int
    reads_ratings = True
    """Whether the output depends on the residuals, and not on the movies alone."""

    @abstractmethod
    def forward(self, batch: EncoderInput) -> torch.Tensor:
        """``[C, Q, width]``."""


class Statistics(Encoder):
    """Damped mean residuals: over all ratings, over similar movies, and over ratings near in time.

    Similarities and time scales are learned. For each mean there is also the sum of its weights.
    """

    def __init__(self, config: HistoryConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.rbf_features = ContentVector(
            config.vector_dim, preprocessor, free_std=0.01, content_std=0.2
        )
        scales = len(INITIAL_TIME_SCALES) if config.use_times else 0
        self.log_days = nn.Parameter(torch.tensor(INITIAL_TIME_SCALES[:scales]).log())
        self.log_damping = nn.Parameter(torch.full((2 + 2 * scales,), math.log(3.0)))
        self.width = 2 * len(self.log_damping)

    def forward(self, batch: EncoderInput) -> torch.Tensor:
        """``[C, Q, 2 K]``: K means, then the logarithms of their K sums of weights."""
        near = similarity(self.rbf_features, batch)
        weights = [torch.ones_like(near), near]
        if len(self.log_days):
            apart = batch.queries.days[:, :, None] - batch.history.days[:, None, :]
            apart = apart.abs().to(near.dtype)
            for log_days in self.log_days:
                weights += [torch.exp(-apart / log_days.exp())]
                weights += [weights[-1] * near]
        stacked = torch.stack(weights, dim=1) * batch.mask[:, None]
        totals = stacked.sum(-1)
        sums = (stacked * batch.residuals[:, None, None, :]).sum(-1)
        means = sums / (totals + self.log_damping.exp()[:, None])
        return torch.cat([means, torch.log1p(totals) / 4], dim=1).transpose(1, 2)


def similarity(rbf_features: ContentVector, batch: EncoderInput) -> torch.Tensor:
    """``[C, Q, L]`` between 0 and 1, by the distance of the movies' features."""
    left, right = rbf_features(batch.queries.movies), rbf_features(batch.history.movies)
    squares = left.square().sum(-1)[:, :, None] + right.square().sum(-1)[:, None, :]
    return torch.exp(-0.5 * (squares - 2 * left @ right.transpose(1, 2)).clamp(min=0))


class Implicit(Encoder):
    """Mean vector of the other movies that a user has rated, without their ratings, as in SVD++.

    Koren, https://doi.org/10.1145/1401890.1401944.
    """

    reads_ratings = False

    def __init__(self, config: HistoryConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.vectors = ContentVector(config.vector_dim, preprocessor, free_std=0.1)
        self.width = config.vector_dim

    def forward(self, batch: EncoderInput) -> torch.Tensor:
        """``[C, Q, D]``."""
        return batch.mean(self._values(batch), damping=1.0)

    def _values(self, batch: EncoderInput) -> torch.Tensor:
        return self.vectors(batch.history.movies)


class Explicit(Implicit):
    """The same with vectors weighted by the residuals, and its dot product with the query's vector.

    This is the asymmetric model of the same paper.
    """

    reads_ratings = True

    def __init__(self, config: HistoryConfig, preprocessor: Preprocessor) -> None:
        super().__init__(config, preprocessor)
        self.movies = ContentVector(config.vector_dim, preprocessor, free_std=0.1)
        self.width = config.vector_dim + 1

    def forward(self, batch: EncoderInput) -> torch.Tensor:
        """``[C, Q, D + 1]``."""
        mean = super().forward(batch)
        product = (mean * self.movies(batch.queries.movies)).sum(-1, keepdim=True)
        return torch.cat([mean, product], dim=-1)

    def _values(self, batch: EncoderInput) -> torch.Tensor:
        return self.vectors(batch.history.movies) * batch.residuals[:, :, None]


class Transformer(Encoder):
    """One transformer block in which the query attends to the other ratings of the user.

    Vaswani et al., https://arxiv.org/abs/1706.03762, with normalisation before each part. Scores
    decrease with the distance in time, at a learned rate.
    """

    def __init__(self, config: HistoryConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        dim = config.vector_dim
        self.heads = config.heads
        self.movies = ContentVector(dim, preprocessor, free_std=0.1, content_std=0.2)
        self.residual = nn.Linear(1, dim)
        self.before_attention, self.before_dense = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)  # a bias would shift all scores equally
        self.mix = nn.Linear(dim, dim)
        self.dense = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.nearness = nn.Parameter(
            torch.zeros(config.heads) if config.use_times else torch.empty(0)
        )
        self.width = dim

    def forward(self, batch: EncoderInput) -> torch.Tensor:
        """``[C, Q, D]``."""
        target = self.movies(batch.queries.movies)
        history = self.movies(batch.history.movies) + self.residual(batch.residuals[:, :, None])
        history = self.before_attention(history)
        query = self._split_heads(self.query(self.before_attention(target)))
        key = self._split_heads(self.key(history))
        value = self._split_heads(self.value(history))
        bias = self._bias(batch, query.dtype)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        result = target + self.mix(attended.transpose(1, 2).flatten(2))
        return result + self.dense(self.before_dense(result))

    def _split_heads(self, vectors: torch.Tensor) -> torch.Tensor:
        """``[C, L, D] -> [C, H, L, D / H]``."""
        return vectors.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _bias(self, batch: EncoderInput, dtype: torch.dtype) -> torch.Tensor:
        """``[C, H, Q, L]`` added to the attention scores; very low where ``mask`` is false."""
        hidden = torch.where(batch.mask, 0.0, -1e9)[:, None].to(dtype)
        if not len(self.nearness):
            return hidden
        apart = batch.queries.days[:, :, None] - batch.history.days[:, None, :]
        distance = torch.log1p(apart.abs()).to(dtype)
        return hidden - nn.functional.softplus(self.nearness)[:, None, None] * distance[:, None]


ENCODERS: Final[dict[str, Callable[[HistoryConfig, Preprocessor], Encoder]]] = {
    "statistics": Statistics,
    "implicit": Implicit,
    "explicit": Explicit,
    "transformer": Transformer,
}


class HistoryInputs(nn.Module):
    """The configured encoders, applied to groups of training rows or to whole histories."""

    def __init__(self, config: HistoryConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        names = [name for name in config.encoders if name in ENCODERS]
        encoders = [ENCODERS[name](config, preprocessor) for name in names]
        self.width = sum(encoder.width for encoder in encoders)
        self.level = MovieMean(preprocessor) if any(e.reads_ratings for e in encoders) else None
        self.encoders = nn.ModuleList(encoders)
        self._causal = config.causal

    def within_groups(
        self, rows: Ratings, targets: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        """Encode the other rows of each row's group, or with ``causal`` those before it.

        ``[B]`` each -> ``[B, width]``.
        """
        residuals = self._residuals(targets, rows)
        result = residuals.new_zeros(len(targets), self.width)
        for group in blocks(starts):
            block = group.in_time(rows.days) if self._causal else group
            square = (block.mask.shape[1],) * 2
            all_pairs = torch.ones(square, dtype=torch.bool, device=starts.device)
            before = all_pairs.tril(diagonal=-1)
            others = before if self._causal else before | before.T
            mask = block.mask[:, :, None] & block.mask[:, None, :] & others
            ratings = rows[block.rows]
            encoded = self._encode(EncoderInput(ratings, ratings, residuals[block.rows], mask))
            result = result.index_put((block.rows[block.mask],), encoded[block.mask])
        return result

    def from_history(self, users: torch.Tensor, rows: Ratings, history: History) -> torch.Tensor:
        """Encode all of the users' ratings: ``users``, ``rows: [B]`` -> ``[B, width]``."""
        ratings = history.ratings()
        residuals = self._residuals(history.targets, ratings)
        result = residuals.new_zeros(len(users), self.width)
        order = torch.argsort(users, stable=True)
        for user, queries in by_user(users[order].long(), order):
            of_user = torch.arange(
                int(history.starts[user]), int(history.starts[user + 1]), device=users.device
            )
            mask = torch.ones(1, len(queries), len(of_user), dtype=torch.bool, device=users.device)
            batch = EncoderInput(
                as_one_group(rows[queries]),
                as_one_group(ratings[of_user]),
                residuals[of_user][None],
                mask,
            )
            result[queries] = self._encode(batch)[0]
        return result

    def _residuals(self, ratings: torch.Tensor, rows: Ratings) -> torch.Tensor:
        return ratings if self.level is None else ratings - self.level(rows.movies)

    def _encode(self, batch: EncoderInput) -> torch.Tensor:
        return torch.cat([encoder(batch) for encoder in self.encoders], dim=-1)
