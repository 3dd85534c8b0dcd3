"""Branches that depend on the content of a movie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn

from ncf.config import ModelConfig, NameList
from ncf.data.preprocessor import UNKNOWN, Preprocessor
from ncf.errors import DataError
from ncf.models.branches.base import Branch
from ncf.models.layers import embedding


class GenreAverage(Branch):
    """Mean of the vectors of a movie's genres; zero for a movie without any."""

    depends_on = "movie"
    shares: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__(config, preprocessor)
        genres = torch.tensor(preprocessor.movies.genres, dtype=torch.float32)
        counts = genres.sum(dim=1, keepdim=True)
        self.register_buffer("shares", genres / counts.clamp(min=1), persistent=False)
        self.vectors = nn.Parameter(torch.empty(genres.shape[1], config.embedding_dim))
        nn.init.normal_(self.vectors, std=config.embedding_std)

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """None: a genre has many movies."""
        return iter(())

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``: ``shares [B, G] @ vectors [G, D]``."""
        return self.shares.index_select(0, movies) @ self.vectors


class DecadeEmbedding(Branch):
    """A vector for each release decade."""

    depends_on = "movie"
    index: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__(config, preprocessor)
        self.table = embedding(len(preprocessor.decades), config)
        index = torch.tensor(preprocessor.movies.decade)
        self.register_buffer("index", index, persistent=False)

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """None: a decade has many movies."""
        return iter(())

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(self.index.index_select(0, movies))


class NumericProjection(Branch):
    """A linear map of the standardised numeric features."""

    depends_on = "movie"
    values: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__(config, preprocessor)
        values = torch.tensor(preprocessor.movies.numeric)
        self.register_buffer("values", values, persistent=False)
        self.linear = nn.Linear(values.shape[1], config.embedding_dim)

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """None: there is no table."""
        return iter(())

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``: ``values [B, F]`` through a linear layer."""
        return self.linear(self.values.index_select(0, movies))


class NameAverage(Branch):
    """Mean of the vectors of one of a movie's lists of names; zero for a movie without any."""

    depends_on = "movie"
    name: ClassVar[NameList]
    entries: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__(config, preprocessor)
        name = self.name
        if name not in preprocessor.vocabularies:
            raise DataError(
                f"the input {name!r} needs TMDb records, and {name} in features.names; these data "
                f"have {', '.join(preprocessor.vocabularies) or 'neither'}"
            )
        entries = torch.tensor(preprocessor.movies.names[name])
        self.register_buffer("entries", entries, persistent=False)
        self.table = embedding(len(preprocessor.vocabularies[name]), config)

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """The embedding table."""
        yield self.table.weight

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        entries = self.entries[movies.long()]
        counts = (entries != UNKNOWN).sum(dim=1, keepdim=True)
        return self.table(entries).sum(dim=1) / counts.clamp(min=1)


class DirectorsAverage(NameAverage):
    """Mean of the vectors of a movie's directors."""

    name = "directors"


class CastAverage(NameAverage):
    """Mean of the vectors of a movie's cast."""

    name = "cast"


class KeywordsAverage(NameAverage):
    """Mean of the vectors of a movie's keywords."""

    name = "keywords"
