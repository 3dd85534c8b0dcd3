"""One of several training processes, started by ``test_data_parallel``; not a test itself.

``python data_parallel.py FOLDER RANK SIZE MODEL...`` reads the prepared data in FOLDER, or streams
them for a MODEL of that name, and writes what it found of each MODEL as ``SIZE-RANK.json`` and
``SIZE-RANK.safetensors`` in its folder.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from pyarrow import fs
from safetensors.torch import save_file
from torch import distributed, nn

from ncf.config import ExperimentConfig, HistoryConfig, ModelConfig, TimeDecayConfig, TrainConfig
from ncf.data.batches import RatingSource
from ncf.data.dataset import PreparedDataset
from ncf.data.placement import free_on_every_worker
from ncf.data.sampling import Shard
from ncf.data.streaming import Streamed
from ncf.evaluation.predictions import evaluate
from ncf.models.targets import Objective
from ncf.training.loop import Training
from ncf.training.state import TrainingState
from ncf.training.trainer import build

TRAIN = TrainConfig(epochs=3, batch_size=100, learning_rate=0.01, embedding_l2=5, patience=0)
HISTORY = {"vector_dim": 4, "linear_dim": 2, "rbf_dim": 2, "chunk": 16}
MODELS = {
    # Dropout draws other masks in every process, so there is none in those that are compared.
    "five-inputs": ModelConfig(embedding_dim=4, hidden_dims=(8,), dropout=0.0),
    # To be interrupted; each worker continues with its own masks.
    "dropout": ModelConfig(embedding_dim=4, hidden_dims=(8,), dropout=0.3),
    "streamed": ModelConfig(embedding_dim=4, hidden_dims=(8,), dropout=0.0),
    "batch-normalisation": ModelConfig(
        embedding_dim=4, hidden_dims=(8, 6), dropout=0.0, normalization="batch"
    ),
    **{
        name: ModelConfig(
            inputs=("user", "genres", "time"),
            embedding_dim=4,
            hidden_dims=(8,),
            dropout=0.0,
            biases=("movie",),
            gmf_dim=4,
            history=HistoryConfig(encoders=encoders, **HISTORY),
        )
        for name, encoders in (
            ("gaussian-process", ("gaussian-process",)),
            ("encoders", ("statistics", "implicit", "explicit", "transformer")),
        )
    },
}


def main(folder: Path, rank: int, size: int, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    if size > 1:
        meeting = (folder / "meeting").as_uri()
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    for name in names:
        train_and_write(folder, name, Shard(rank, size))
    if size > 1:
        # The wrapped models are gone by now, and with it the last reference to the group: gloo's
        # threads end here. Ones that outlive the interpreter abort the process at its exit.
        gc.collect()
        distributed.destroy_process_group()


def train_and_write(folder: Path, name: str, shard: Shard) -> None:
    experiment = ExperimentConfig(
        model=MODELS[name], train=TRAIN, time_decay=TimeDecayConfig(apply_to="loss")
    )
    prepared = PreparedDataset.open(fs.LocalFileSystem(), str(folder))
    train, validation, test = (
        rows_of(prepared, split, streamed=name == "streamed")
        for split in ("train", "validation", "test")
    )
    objective = Objective(experiment.train, experiment.time_decay, prepared.preprocessor)

    def training(resume: TrainingState | None = None) -> Training:
        model = build(experiment, prepared.preprocessor, train)
        torch.manual_seed(shard.rank)
        wrapper = None
        if shard.world_size > 1:
            wrapper = nn.parallel.DistributedDataParallel(model.network)
        return Training(
            model, train, validation, objective, shard=shard, resume=resume, data_parallel=wrapper
        )

    whole = training()
    states = [whole.state() for _ in whole]
    result = whole.result
    resumed = training(states[0])
    assert len(list(resumed)) == len(states) - 1
    again = resumed.result.last
    found = {
        "rows": [
            sum(len(shard.of(part)) for part in rows.parts()) for rows in (train, validation, test)
        ],
        # One rank has neighbours, so that it could take less than the other.
        "free": free_on_every_worker(torch.device("cpu"), shard, 1 + 999 * shard.rank),
        "goes_on": all(torch.equal(again[name], value) for name, value in result.last.items()),
        "best_epoch": result.best_epoch,
        "epochs": [epoch.as_dict() for epoch in result.epochs],
        "test": evaluate(whole.model, test, objective, shard).as_dict(),
    }
    file = folder / name / f"{shard.world_size}-{shard.rank}"
    save_file(result.last, file.with_suffix(".safetensors"))
    file.with_suffix(".json").write_text(json.dumps(found), encoding="utf-8")


def rows_of(prepared: PreparedDataset, split: str, *, streamed: bool) -> RatingSource:
    if streamed:
        return Streamed(prepared, split, torch.device("cpu"), window=300)
    rows = prepared.rows(split)
    assert rows is not None
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
