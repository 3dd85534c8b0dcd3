"""State of the generators that draw dropout masks, one for each worker."""

from __future__ import annotations

import torch
from torch import distributed

from ncf.data.sampling import Shard


def dropout_state(device: torch.device) -> torch.Tensor:
    """``[S]`` state of the generator that draws this worker's dropout masks."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_dropout_state(state: torch.Tensor, device: torch.device) -> None:
    """Continue from ``state: [S]``.

    A state of another kind of device has another size, and is left out: masks are then drawn from
    the state that the worker was seeded with.
    """
    if state.shape != dropout_state(device).shape:
        return
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def gather_states(state: torch.Tensor, shard: Shard) -> torch.Tensor:
    """``[S]`` of each worker -> ``[W, S]`` on all of them; all workers must call this."""
    if shard.world_size == 1:
        return state[None]
    on_cuda = distributed.get_backend() == "nccl"
    own = state.cuda() if on_cuda else state
    states = [torch.empty_like(own) for _ in range(shard.world_size)]
    distributed.all_gather(states, own)
    return torch.stack(states).cpu()
