"""Weights of a network as a dictionary on the CPU."""

from __future__ import annotations

import torch

from ncf.models.ncf import NCF

Weights = dict[str, torch.Tensor]
"""Tensors by their names in the network's ``state_dict``."""


def snapshot(network: NCF) -> Weights:
    """A copy of the weights on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True) for name, value in network.state_dict().items()
    }
