"""Branches of the network: each turns users, movies and times ``[B]`` into one vector ``[B, D]``.

Movies are positions in the movie table; the table's columns are buffers of the branch that uses
them, so that a batch carries two integers and a time for each row, and nothing is repeated. Times
are seconds since 1970 UTC; only branches that look at them need them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce

from ncf.batches import Rows
from ncf.config import ModelConfig, ModelInput, NameList
from ncf.errors import DataError
from ncf.fitted import UNKNOWN, FittedState

SECONDS_PER_DAY: Final = 86_400.0
NEVER: Final = 2**62
"""A time that no rating has."""


def embedding(num_entries: int, config: ModelConfig) -> nn.Embedding:
    """Vectors for indices 1..num_entries, and a fixed zero vector for ``UNKNOWN``."""
    return entity_table(num_entries, config.embedding_dim, config.embedding_std)


def entity_table(num_entries: int, dim: int, std: float) -> nn.Embedding:
    """The same with a size and an initial spread of one's own."""
    table = nn.Embedding(num_entries + 1, dim, padding_idx=UNKNOWN)
    nn.init.normal_(table.weight, std=std)
    with torch.no_grad():
        table.weight[UNKNOWN].zero_()
    return table


class UserEmbedding(nn.Module):
    """A free vector for each training user."""

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        self.table = embedding(fitted.num_users, config)

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
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

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(self.index.index_select(0, movies))


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

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``: ``shares [B, G] @ vectors [G, D]``."""
        return self.shares.index_select(0, movies) @ self.vectors


class DecadeEmbedding(nn.Module):
    """A vector for each release decade."""

    index: torch.Tensor

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        self.table = embedding(len(fitted.decades), config)
        index = torch.tensor(fitted.movies.decade)
        self.register_buffer("index", index, persistent=False)

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B] -> [B, D]``."""
        return self.table(self.index.index_select(0, movies))


class NumericProjection(nn.Module):
    """A linear map of the standardised numeric features."""

    values: torch.Tensor

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        values = torch.tensor(fitted.movies.numeric)
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

    def __init__(self, name: NameList, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        if name not in fitted.vocabularies:
            raise DataError(
                f"the input {name!r} needs TMDb records, and {name} in features.names; these data "
                f"have {', '.join(fitted.vocabularies) or 'neither'}"
            )
        entries = torch.tensor(fitted.movies.names[name])
        self.register_buffer("entries", entries, persistent=False)
        self.table = embedding(len(fitted.vocabularies[name]), config)

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

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        self.register_buffer("first", torch.full((fitted.num_users + 1,), NEVER))
        self.register_buffer("years", release_years(fitted), persistent=False)
        self.reference = fitted.decay_reference
        self.linear = nn.Linear(4, config.embedding_dim)

    def remember(self, rows: Rows) -> None:
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


class ContentVector(nn.Module):
    """A movie's vector: a linear map of its content, plus a free one for each training movie."""

    content: torch.Tensor
    index: torch.Tensor

    def __init__(
        self, dim: int, fitted: FittedState, *, free_std: float | None, content_std: float = 0.05
    ) -> None:
        """``free_std`` is the initial spread of the free vectors, None leaves them out."""
        super().__init__()
        self.register_buffer("content", content_features(fitted), persistent=False)
        self.linear = nn.Linear(self.content.shape[1], dim, bias=False)
        nn.init.normal_(self.linear.weight, std=content_std)
        self.free = None
        if free_std is not None:
            self.free = entity_table(fitted.num_movies, dim, free_std)
            index = torch.tensor(fitted.movies.embedding_index)
            self.register_buffer("index", index, persistent=False)

    def forward(self, movies: torch.Tensor) -> torch.Tensor:
        """``[...] -> [..., D]``."""
        movies = movies.long()
        vectors = self.linear(self.content[movies])
        return vectors if self.free is None else vectors + self.free(self.index[movies])


class Biases(nn.Module):
    """A number for each training user, or movie, or both."""

    index: torch.Tensor

    def __init__(self, names: Sequence[str], fitted: FittedState) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor(fitted.movies.embedding_index), persistent=False)
        self.user = entity_table(fitted.num_users, 1, 0.0) if "user" in names else None
        self.movie = entity_table(fitted.num_movies, 1, 0.0) if "movie" in names else None

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """``[B], [B] -> [B]``."""
        result = torch.zeros(len(users), device=users.device)
        if self.user is not None:
            result = result + self.user(users).squeeze(1)
        if self.movie is not None:
            result = result + self.movie(self.index[movies.long()]).squeeze(1)
        return result


class Factors(nn.Module):
    """Generalised matrix factorisation: weighted products of a user's and a movie's components.

    He et al., https://doi.org/10.1145/3038912.3052569, section 3.2; the movie's vector also follows
    from its content, so that it says something about films with few ratings.
    """

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        super().__init__()
        self.users = entity_table(fitted.num_users, config.gmf_dim, config.embedding_std)
        self.movies = ContentVector(config.gmf_dim, fitted, free_std=config.embedding_std)
        self.output = nn.Linear(config.gmf_dim, 1, bias=False)
        nn.init.ones_(self.output.weight)

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """``[B], [B] -> [B]``."""
        return self.output(self.users(users) * self.movies(movies)).squeeze(1)


class BatchNorm(nn.BatchNorm1d):
    """Normalises by the mean and variance of all workers' rows, on any device.

    ``SyncBatchNorm`` does the same on GPUs alone, and neither takes a batch of a single row.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``[B, D] -> [B, D]``."""
        workers = distributed.get_world_size() if distributed.is_initialized() else 1
        if not self.training or (workers == 1 and len(input) > 1):
            return super().forward(input)
        sums = torch.cat([input.sum(dim=0), input.new_full((1,), len(input))])
        if workers > 1:
            sums = all_reduce(sums)
        count = sums[-1]
        mean = sums[:-1] / count
        squares = (input - mean).square().sum(dim=0)
        if workers > 1:
            squares = all_reduce(squares)
        variance = squares / count
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(squares / (count - 1).clamp(min=1), self.momentum)
            self.num_batches_tracked += 1
        return (input - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def content_features(fitted: FittedState) -> torch.Tensor:
    """What is known of each movie without its ratings, ``[M, C]``: genres, decade, numeric."""
    movies = fitted.movies
    decades = np.eye(len(fitted.decades) + 1, dtype=np.float32)[movies.decade][:, 1:]
    columns = [movies.genres.astype(np.float32), decades, movies.numeric]
    return torch.tensor(np.concatenate(columns, axis=1))


def release_years(fitted: FittedState) -> torch.Tensor:
    """``[M]`` release years, NaN where unknown or where the features do not hold them."""
    names = fitted.numeric_names
    if "year" not in names:
        return torch.full((len(fitted.movies),), math.nan)
    column = next(column for column in fitted.numeric if column.name == "year")
    years = fitted.movies.numeric[:, names.index("year")] * column.scale + column.mean
    if "year_missing" in names:
        years = np.where(fitted.movies.numeric[:, names.index("year_missing")] > 0, np.nan, years)
    return torch.tensor(years, dtype=torch.float32)


BRANCHES: Final[dict[ModelInput, Callable[[ModelConfig, FittedState], nn.Module]]] = {
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
