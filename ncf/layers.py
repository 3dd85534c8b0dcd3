"""Branches of the network: each turns users ``[B]`` and movies ``[B]`` into one vector ``[B, D]``.

Movies are positions in the movie table; the table's columns are buffers of the branch that uses
them, so that a batch carries two integers a row and nothing is repeated for each rating.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from ncf.config import ModelConfig, ModelInput
from ncf.fitted import UNKNOWN, FittedState


def embedding(num_entries: int, config: ModelConfig) -> nn.Embedding:
    """Vectors for indices 1..num_entries, and a fixed zero vector for ``UNKNOWN``."""
    table = nn.Embedding(num_entries + 1, config.embedding_dim, padding_idx=UNKNOWN)
    nn.init.normal_(table.weight, std=config.embedding_std)
    with torch.no_grad():
        table.weight[UNKNOWN].zero_()
    return table


class UserEmbedding(nn.Module):
    """A free vector for each training user."""

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        self.table = embedding(fitted.num_users, config)

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(users)


class MovieEmbedding(nn.Module):
    """A free vector for each training movie."""

    index: torch.Tensor

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        self.table = embedding(fitted.num_movies, config)
        index = torch.tensor(fitted.movies.embedding_index)
        self.register_buffer("index", index, persistent=False)

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(self.index[movies])


class GenreAverage(nn.Module):
    """Mean of the vectors of a movie's genres; zero for a movie without any."""

    shares: torch.Tensor

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        genres = torch.tensor(fitted.movies.genres, dtype=torch.float32)
        counts = genres.sum(dim=1, keepdim=True)
        self.register_buffer("shares", genres / counts.clamp(min=1), persistent=False)
        self.vectors = nn.Parameter(torch.empty(genres.shape[1], config.embedding_dim))
        nn.init.normal_(self.vectors, std=config.embedding_std)

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """``[B], [B] -> [B, D]``: ``shares [B, G] @ vectors [G, D]``."""
        return self.shares[movies] @ self.vectors


class DecadeEmbedding(nn.Module):
    """A vector for each release decade."""

    index: torch.Tensor

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        self.table = embedding(len(fitted.decades), config)
        index = torch.tensor(fitted.movies.decade)
        self.register_buffer("index", index, persistent=False)

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(self.index[movies])


class NumericProjection(nn.Module):
    """A linear map of the standardised numeric features."""

    values: torch.Tensor

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        values = torch.tensor(fitted.movies.numeric)
        self.register_buffer("values", values, persistent=False)
        self.linear = nn.Linear(values.shape[1], config.embedding_dim)

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """``[B], [B] -> [B, D]``: ``values [B, F]`` through a linear layer."""
        return self.linear(self.values[movies])


BRANCHES: Final[dict[ModelInput, Callable[[ModelConfig, FittedState], nn.Module]]] = {
    "user": UserEmbedding,
    "movie": MovieEmbedding,
    "genres": GenreAverage,
    "decade": DecadeEmbedding,
    "numeric": NumericProjection,
}
