"""Layers that several parts of the network use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce

from ncf.config import ModelConfig
from ncf.data.preprocessor import UNKNOWN, Preprocessor

L2Group = Literal["embedding", "bias", "history"]
"""Which setting penalises a table: ``train.embedding_l2``, ``bias_l2`` or ``history_l2``."""


class Penalized(nn.Module, ABC):
    """A module with tables whose squared norm is added to the loss."""

    l2_group: L2Group

    @abstractmethod
    def l2_tables(self) -> Iterator[torch.Tensor]:
        """The penalised tables of this module, without those of ``Penalized`` modules in it.

        Tables of entities with few ratings need the penalty: users, movies or actors.
        """


def embedding(num_entries: int, config: ModelConfig) -> nn.Embedding:
    """Vectors for indices 1..num_entries, and a fixed zero vector for ``UNKNOWN``."""
    return entity_table(num_entries, config.embedding_dim, config.embedding_std)


def entity_table(num_entries: int, dim: int, std: float) -> nn.Embedding:
    """The same with vectors of size ``dim`` and initial standard deviation ``std``."""
    table = nn.Embedding(num_entries + 1, dim, padding_idx=UNKNOWN)
    nn.init.normal_(table.weight, std=std)
    with torch.no_grad():
        table.weight[UNKNOWN].zero_()
    return table


class ContentVector(Penalized):
    """A movie's vector: a linear map of its content, plus a free vector of each training movie."""

    content: torch.Tensor
    index: torch.Tensor

    def __init__(
        self,
        dim: int,
        preprocessor: Preprocessor,
        *,
        free_std: float | None,
        content_std: float = 0.05,
        l2_group: L2Group = "history",
    ) -> None:
        """``free_std`` and ``content_std`` are initial standard deviations of the free vectors and
        of the linear map; with None there are no free vectors."""
        super().__init__()
        self.l2_group = l2_group
        self.register_buffer("content", content_features(preprocessor), persistent=False)
        self.linear = nn.Linear(self.content.shape[1], dim, bias=False)
        nn.init.normal_(self.linear.weight, std=content_std)
        self.free = None
        if free_std is not None:
            self.free = entity_table(preprocessor.num_movies, dim, free_std)
            index = torch.tensor(preprocessor.movies.embedding_index)
            self.register_buffer("index", index, persistent=False)

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """The free vectors, if there are any."""
        if self.free is not None:
            yield self.free.weight

    def forward(self, movies: torch.Tensor) -> torch.Tensor:
        """``[...] -> [..., D]``."""
        movies = movies.long()
        vectors = self.linear(self.content[movies])
        return vectors if self.free is None else vectors + self.free(self.index[movies])


class Biases(Penalized):
    """Biases of training users, or movies, or both."""

    l2_group: L2Group = "bias"
    index: torch.Tensor

    def __init__(self, names: Sequence[str], preprocessor: Preprocessor) -> None:
        super().__init__()
        self.register_buffer(
            "index", torch.tensor(preprocessor.movies.embedding_index), persistent=False
        )
        self.user = entity_table(preprocessor.num_users, 1, 0.0) if "user" in names else None
        self.movie = entity_table(preprocessor.num_movies, 1, 0.0) if "movie" in names else None

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """The tables of users and movies, if there are any."""
        for table in (self.user, self.movie):
            if table is not None:
                yield table.weight

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """``[B], [B] -> [B]``."""
        result = torch.zeros_like(users, dtype=torch.float32)
        if self.user is not None:
            result = result + self.user(users).squeeze(1)
        if self.movie is not None:
            result = result + self.movie(self.index[movies.long()]).squeeze(1)
        return result


class GMF(Penalized):
    """Generalised matrix factorisation: weighted dot product of a user's and a movie's vector.

    He et al., https://doi.org/10.1145/3038912.3052569, section 3.2. The movie's vector also depends
    on its content, which helps with movies that have few ratings.
    """

    l2_group: L2Group = "embedding"

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.users = entity_table(preprocessor.num_users, config.gmf_dim, config.embedding_std)
        self.movies = ContentVector(
            config.gmf_dim, preprocessor, free_std=config.embedding_std, l2_group="embedding"
        )
        self.output = nn.Linear(config.gmf_dim, 1, bias=False)
        nn.init.ones_(self.output.weight)

    def l2_tables(self) -> Iterator[torch.Tensor]:
        """The users' vectors."""
        yield self.users.weight

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """``[B], [B] -> [B]``."""
        return self.output(self.users(users) * self.movies(movies)).squeeze(1)


class BatchNorm(nn.BatchNorm1d):
    """Normalises by the mean and variance of all workers' rows, on any device.

    ``SyncBatchNorm`` works on GPUs only, and does not accept a batch of a single row, nor does
    ``BatchNorm1d``.
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


def normalization(config: ModelConfig, size: int) -> list[nn.Module]:
    """What ``config.normalization`` puts after a dense layer with ``size`` outputs."""
    kinds: dict[str, list[Callable[[int], nn.Module]]] = {
        "none": [],
        "batch": [BatchNorm],
        "layer": [nn.LayerNorm],
    }
    return [kind(size) for kind in kinds[config.normalization]]


def content_features(preprocessor: Preprocessor) -> torch.Tensor:
    """``[M, C]`` content of each movie, which does not depend on its ratings: genres, decade and
    numeric features."""
    movies = preprocessor.movies
    decades = np.eye(len(preprocessor.decades) + 1, dtype=np.float32)[movies.decade][:, 1:]
    columns = [movies.genres.astype(np.float32), decades, movies.numeric]
    return torch.tensor(np.concatenate(columns, axis=1))
