"""Branches of the network: each turns users, movies and times ``[B]`` into one vector ``[B, D]``.

Movies are positions in the movie table; the table's columns are buffers of the branch that uses
them, so that a batch carries two integers and a time for each row, and nothing is repeated. Times
are seconds since 1970 UTC; only branches that look at them need them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import nn

from ncf.config import ModelConfig, ModelInput, NameList
from ncf.data.batches import RatingSource
from ncf.data.preprocessor import UNKNOWN, Preprocessor
from ncf.errors import DataError
from ncf.models.layers import embedding

SECONDS_PER_DAY: Final = 86_400.0


NEVER: Final = 2**62
"""A time that no rating has."""


class UserEmbedding(nn.Module):
    """A free vector for each training user."""

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.table = embedding(preprocessor.num_users, config)

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(users)


class MovieEmbedding(nn.Module):
    """A free vector for each training movie."""

    index: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.table = embedding(preprocessor.num_movies, config)
        index = torch.tensor(preprocessor.movies.embedding_index)
        self.register_buffer("index", index, persistent=False)

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(self.index.index_select(0, movies))


class GenreAverage(nn.Module):
    """Mean of the vectors of a movie's genres; zero for a movie without any."""

    shares: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        genres = torch.tensor(preprocessor.movies.genres, dtype=torch.float32)
        counts = genres.sum(dim=1, keepdim=True)
        self.register_buffer("shares", genres / counts.clamp(min=1), persistent=False)
        self.vectors = nn.Parameter(torch.empty(genres.shape[1], config.embedding_dim))
        nn.init.normal_(self.vectors, std=config.embedding_std)

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``: ``shares [B, G] @ vectors [G, D]``."""
        return self.shares.index_select(0, movies) @ self.vectors


class DecadeEmbedding(nn.Module):
    """A vector for each release decade."""

    index: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.table = embedding(len(preprocessor.decades), config)
        index = torch.tensor(preprocessor.movies.decade)
        self.register_buffer("index", index, persistent=False)

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(self.index.index_select(0, movies))


class NumericProjection(nn.Module):
    """A linear map of the standardised numeric features."""

    values: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        values = torch.tensor(preprocessor.movies.numeric)
        self.register_buffer("values", values, persistent=False)
        self.linear = nn.Linear(values.shape[1], config.embedding_dim)

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``: ``values [B, F]`` through a linear layer."""
        return self.linear(self.values.index_select(0, movies))


class NameAverage(nn.Module):
    """Mean of the vectors of a movie's directors, cast or keywords; zero for one without any."""

    entries: torch.Tensor

    def __init__(self, name: NameList, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        if name not in preprocessor.vocabularies:
            raise DataError(
                f"the input {name!r} needs TMDb records, and {name} in features.names; these data "
                f"have {', '.join(preprocessor.vocabularies) or 'neither'}"
            )
        entries = torch.tensor(preprocessor.movies.names[name])
        self.register_buffer("entries", entries, persistent=False)
        self.table = embedding(len(preprocessor.vocabularies[name]), config)

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        entries = self.entries[movies.long()]
        counts = (entries != UNKNOWN).sum(dim=1, keepdim=True)
        return self.table(entries).sum(dim=1) / counts.clamp(min=1)


class TimeFeatures(nn.Module):
    """When the rating was given: how long after the user's first, and how long after the release.

    Square roots and logarithms, because the first days of a user and the first years of a film tell
    most.
    """

    first: torch.Tensor
    years: torch.Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.register_buffer("first", torch.full((preprocessor.num_users + 1,), NEVER))
        self.register_buffer("years", release_years(preprocessor), persistent=False)
        self.reference = preprocessor.decay_reference
        self.linear = nn.Linear(4, config.embedding_dim)

    def fit_rows(self, rows: RatingSource) -> None:
        """Note when each user's training ratings began."""
        self.first.fill_(NEVER)
        for part in rows.parts():
            self.first.scatter_reduce_(0, part.users.long(), part.times, reduce="amin")

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B], [B] -> [B, D]``: four features through a linear layer."""
        if times is None:
            raise ValueError("a model with the input 'time' needs the times of its rows")
        # A user's first training rating may come after the row; and an unknown user has none.
        days = (times - self.first[users.long()]).clamp(min=0) / SECONDS_PER_DAY
        year = 1970 + times / (365.25 * SECONDS_PER_DAY)
        age = year - self.years[movies.long()]
        decades = (times - self.reference) / (3652.5 * SECONDS_PER_DAY)
        features = [
            torch.log1p(days) / 4,
            (days > 1).float(),
            torch.where(age.isnan(), 0.0, age.clamp(min=0).sqrt() / 4),
            decades,
        ]
        return self.linear(torch.stack([f.to(self.linear.weight.dtype) for f in features], dim=1))


def release_years(preprocessor: Preprocessor) -> torch.Tensor:
    """``[M]`` release years, NaN where unknown or where the features do not hold them."""
    names = preprocessor.numeric_names
    if "year" not in names:
        return torch.full((len(preprocessor.movies),), math.nan)
    column = next(column for column in preprocessor.numeric if column.name == "year")
    years = preprocessor.movies.numeric[:, names.index("year")] * column.scale + column.mean
    if "year_missing" in names:
        years = np.where(
            preprocessor.movies.numeric[:, names.index("year_missing")] > 0, np.nan, years
        )
    return torch.tensor(years, dtype=torch.float32)


BRANCHES: Final[dict[ModelInput, Callable[[ModelConfig, Preprocessor], nn.Module]]] = {
    "user": UserEmbedding,
    "movie": MovieEmbedding,
    "genres": GenreAverage,
    "decade": DecadeEmbedding,
    "numeric": NumericProjection,
    "time": TimeFeatures,
    "directors": partial(NameAverage, "directors"),
    "cast": partial(NameAverage, "cast"),
    "keywords": partial(NameAverage, "keywords"),
}
