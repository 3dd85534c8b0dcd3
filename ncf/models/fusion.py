"""How the embedded inputs of a row are put together: ``[B, F, D] -> [B, F * D]``."""

from __future__ import annotations

import torch
from torch import nn

from ncf.config import ModelConfig


class FieldAttention(nn.Module):
    """Each input is scaled by how much it matters in this row, then all are concatenated.

    The weights are a softmax over the inputs, as in Xiao et al., https://arxiv.org/abs/1708.04617,
    times their number, so that equal weights leave everything as it was.
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
    """Inputs attend to each other in one transformer block, then are concatenated.

    Song et al., https://arxiv.org/abs/1810.11921; Vaswani et al., https://arxiv.org/abs/1706.03762.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        # Inputs are told apart by what is added to each.
        self.position = nn.Parameter(torch.randn(len(config.inputs), dim) * config.embedding_std)
        self.block = nn.TransformerEncoderLayer(
            dim, nhead=1, dim_feedforward=2 * dim, dropout=config.dropout, batch_first=True
        )

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """``[B, F, D] -> [B, F * D]``."""
        mixed: torch.Tensor = self.block(fields + self.position)
        return mixed.flatten(1)


def fusion(config: ModelConfig) -> nn.Module:
    """The module that ``config.fusion`` names."""
    if config.fusion == "attention":
        return FieldAttention(config)
    if config.fusion == "transformer":
        return FieldTransformer(config)
    return nn.Flatten()
