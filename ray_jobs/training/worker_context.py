"""What Ray Train tells a worker: its part of the work, its device, and its partners."""

from __future__ import annotations

import ray.train
import ray.train.torch
import torch
from torch import distributed, nn

from ncf.data.sampling import Shard
from ray_jobs.training.local_mode import LocalMode


def shard_of_worker() -> Shard:
    """This worker's part of every batch, if all workers of its trainer train one model."""
    context = ray.train.get_context()
    return Shard(context.get_world_rank(), context.get_world_size())


def device_of_worker(local: LocalMode | None) -> torch.device:
    """The device that this worker trains on; in local mode no GPU is reserved."""
    device: torch.device = ray.train.torch.get_device()
    return torch.device("cpu") if local else device


def broadcast(value: bool, shard: Shard, device: torch.device) -> bool:
    """The first worker's ``value``, on all workers of the group."""
    if shard.world_size == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.uint8, device=device)
    distributed.broadcast(tensor, src=0)
    return bool(tensor)


def data_parallel(network: nn.Module, shard: Shard) -> nn.Module:
    """The network on this worker's device; if several workers train it, they share gradients."""
    module: nn.Module = ray.train.torch.prepare_model(
        network,
        # A single worker may be one of many that train other models, without a process group.
        parallel_strategy="ddp" if shard.world_size > 1 else None,
        # Buffers never change, so sending them with every step would be waste.
        parallel_strategy_kwargs={"broadcast_buffers": False} if shard.world_size > 1 else None,
    )
    return module
