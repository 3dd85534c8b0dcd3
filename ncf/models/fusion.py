"""How the vectors of all branches become one: ``[B, F, D] -> [B, F * D]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from ncf.config import ModelConfig


class FieldAttention(nn.Module):
    """Scales each branch's vector by a learned weight that depends on the row.

    The weights are a softmax over the branches, as in Xiao et al.,
    https://arxiv.org/abs/1708.04617, times the number of branches, so that equal weights are 1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.score = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """``[B, F, D] -> [B, F * D]``."""
        weights = torch.softmax(self.score(fields), dim=1) * fields.shape[1]
        return (weights * fields).flatten(1)


class FieldTransformer(nn.Module):
    """Lets branches attend to each other in one transformer block.

    Song et al., https://arxiv.org/abs/1810.11921; Vaswani et al., https://arxiv.org/abs/1706.03762.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        # Added to each branch's vector, so that the block can tell branches apart.
        self.position = nn.Parameter(torch.randn(len(config.inputs), dim) * config.embedding_std)
        self.block = nn.TransformerEncoderLayer(
            dim, nhead=1, dim_feedforward=2 * dim, dropout=config.dropout, batch_first=True
        )

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """``[B, F, D] -> [B, F * D]``."""
        mixed: torch.Tensor = self.block(fields + self.position)
        return mixed.flatten(1)


FUSIONS: Final[dict[str, Callable[[ModelConfig], nn.Module]]] = {
    "concat": lambda config: nn.Flatten(),
    "attention": FieldAttention,
    "transformer": FieldTransformer,
}
"""Values of ``model.fusion``."""


def fusion(config: ModelConfig) -> nn.Module:
    """The module that ``config.fusion`` names."""
    return FUSIONS[config.fusion](config)
