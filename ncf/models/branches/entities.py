"""Branches with a learned vector for each user or movie."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ncf.config import ModelConfig
from ncf.data.preprocessor import Preprocessor
from ncf.models.branches.base import Branch
from ncf.models.layers import embedding


class UserEmbedding(Branch):
    """A learned vector for each training user."""

    depends_on = "user"

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__(config, preprocessor)
        self.table = embedding(preprocessor.num_users, config)

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """The embedding table."""
        yield self.table.weight

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(users)


class MovieEmbedding(Branch):
    """A learned vector for each training movie."""

    depends_on = "movie"
    index: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__(config, preprocessor)
        self.table = embedding(preprocessor.num_movies, config)
        index = torch.tensor(preprocessor.movies.embedding_index)
        self.register_buffer("index", index, persistent=False)

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """The embedding table."""
        yield self.table.weight

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(self.index.index_select(0, movies))
