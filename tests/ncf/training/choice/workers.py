"""One of several training processes, started by ``test_loop``; not a test itself.

``python workers.py FOLDER RANK SIZE LOSS...`` trains a network with each LOSS and writes its
weights and losses as ``LOSS-SIZE-RANK.safetensors``.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed, nn

from ncf.choice_config import NetworkConfig
from ncf.data.sampling import Shard
from ncf.models.choice.network import build_network
from ncf.training.choice.loop import ChoiceTraining
from tests.ncf.training.choice.clusters import clusters


def main(folder: Path, rank: int, size: int, losses: Sequence[str]) -> None:
    torch.set_num_threads(1)
    if size > 1:
        meeting = (folder / "meeting").as_uri()
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    for loss in losses:
        train_and_write(folder, loss, Shard(rank, size))
    if size > 1:
        # The last reference to the group is gone by now; gloo's threads end here.
        gc.collect()
        distributed.destroy_process_group()


def train_and_write(folder: Path, loss: str, shard: Shard) -> None:
    world = clusters(num_users=41)
    # The last batch has one user, so the second worker takes a step without any.
    config = NetworkConfig(
        loss=loss, dim=4, epochs=3, batch_users=20, users=("history", "embedding")
    )
    network = build_network(config, world.preprocessor, world.train)
    wrapper = nn.parallel.DistributedDataParallel(network) if shard.world_size > 1 else None
    training = ChoiceTraining(
        network, world.train, config, "random", shard=shard, data_parallel=wrapper
    )
    losses = [epoch.train_loss for epoch in training]
    tensors = {**training.result.last, "losses": torch.tensor(losses)}
    save_file(tensors, folder / f"{loss}-{shard.world_size}-{shard.rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
