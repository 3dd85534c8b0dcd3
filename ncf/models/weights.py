"""Weights of a network as a dictionary on the CPU."""

from __future__ import annotations

import torch
from torch import nn

from ncf.models.ncf import NCF


def snapshot(model: nn.Module) -> Weights:
    """A copy of the weights on the CPU, without a data-parallel wrapper's prefix."""
    return {
        name: value.detach().to("cpu", copy=True)
        for name, value in unwrapped(model).state_dict().items()
    }


def unwrapped(model: nn.Module) -> NCF:
    """The network itself, inside a data-parallel wrapper or not."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, NCF)
    return inner


Weights = dict[str, torch.Tensor]
