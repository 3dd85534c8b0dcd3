"""Neural Collaborative Filtering, after He et al., https://doi.org/10.1145/3038912.3052569."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ncf.config import ModelConfig
from ncf.fitted import FittedState
from ncf.layers import BRANCHES, MovieEmbedding, UserEmbedding


class NCF(nn.Module):
    """The configured branches, concatenated, through dense layers to one number a row."""

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        """Build with random weights; seed torch first for repeatable ones."""
        super().__init__()
        self.branches = nn.ModuleDict(
            {name: BRANCHES[name](config, fitted) for name in config.inputs}
        )
        width = config.embedding_dim * len(config.inputs)
        layers: list[nn.Module] = []
        for size in config.hidden_dims:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(config.dropout)]
            width = size
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(width, 1)

    def forward(self, users: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        """Prediction in the training target's unit: ``users: [B]``, ``movies: [B]`` -> ``[B]``."""
        embedded = [branch(users, movies) for branch in self.branches.values()]
        return self.output(self.hidden(torch.cat(embedded, dim=1))).squeeze(1)

    def start_at(self, mean_target: float) -> None:
        """Let the untrained network predict about ``mean_target``."""
        with torch.no_grad():
            self.output.bias.fill_(mean_target)

    def entity_vectors(self) -> Iterator[torch.Tensor]:
        """The free vectors of users and movies, on which the ridge penalty acts."""
        for branch in self.branches.values():
            if isinstance(branch, (UserEmbedding, MovieEmbedding)):
                yield branch.table.weight
