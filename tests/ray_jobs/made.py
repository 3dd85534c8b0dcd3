"""A tiny run with a model of random weights, for tests of what uses a kept model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ncf import checkpoint
from ncf.batches import Batch
from ncf.config import ExperimentConfig, HistoryConfig, ModelConfig
from ncf.fitted import FittedState, MovieTable
from ncf.model import NCF
from ncf.serving import Recommender, load
from ncf.training import snapshot
from ray_jobs.config import JobConfig
from ray_jobs.workspace import Workspace

TITLES = ("Toy Story (1995)", "Heat (1995)", "Seven, Eight (1990)", "Fargo (1996)", "Dune (1984)")
IDS = (1, 6, 20, 30, 40)
NEWEST = 1_000_000
CLOSED = ModelConfig(
    inputs=("genres", "decade"),
    embedding_dim=3,
    hidden_dims=(4,),
    biases=("movie",),
    history=HistoryConfig(encoders=("closed-form",), vector_dim=4, linear_dim=2, radial_dim=2),
)
PLAIN = ModelConfig(inputs=("user", "movie", "genres"), embedding_dim=3, hidden_dims=(4,))

FITTED = FittedState(
    user_ids=np.array([10, 20]),
    genres=("Comedy", "Drama"),
    decades=(1980, 1990),
    numeric=(),
    rating_mean=3.5,
    rating_min=0.5,
    rating_max=5.0,
    decay_reference=NEWEST,
    decay_rate_per_day=0.0,
    movies=MovieTable(
        ids=np.array(IDS),
        titles=TITLES,
        embedding_index=np.arange(1, 6),
        genres=np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0]], dtype=np.bool_),
        decade=np.array([2, 2, 2, 2, 1]),
        numeric=np.zeros((5, 0), dtype=np.float32),
        train_counts=np.array([2, 1, 1, 0, 0]),
    ),
)
ROWS = Batch(
    users=torch.tensor([1, 1, 2, 2], dtype=torch.int32),
    movies=torch.tensor([0, 1, 0, 2], dtype=torch.int32),
    ratings=torch.tensor([5.0, 1.0, 2.0, 4.0]),
    weights=torch.ones(4),
    times=torch.tensor([5, 6, 7, NEWEST]),
)


def kept(folder: Path, config: ModelConfig, fitted: FittedState = FITTED) -> Workspace:
    """A run whose checkpoint has random weights."""
    torch.manual_seed(0)
    model = NCF(config, fitted)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.start_at(3.0)
    model.remember(ROWS)
    experiment = ExperimentConfig(model=config)
    workspace = Workspace(JobConfig(storage=str(folder), name="made"))
    path = Path((workspace.run / "checkpoint").path)
    checkpoint.save(path, snapshot(model), experiment, fitted, {}, model.history)
    return workspace


def asked(workspace: Workspace) -> Recommender:
    return load((workspace.run / "checkpoint").path)
