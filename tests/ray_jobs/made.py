"""A tiny run with a model of random weights, for tests of what uses a kept model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ingest.manifest import TMDB_ATTRIBUTION
from ingest.sources.movielens import MOVIELENS_CITATION
from ncf.baselines.bayesian_factorization import BayesianSettings, bayesian_factorization
from ncf.blending.blend import Blend
from ncf.blending.weights import Weights
from ncf.config import ExperimentConfig, HistoryConfig, ModelConfig
from ncf.data.batches import Batch
from ncf.data.preprocessor import MovieTable, Preprocessor
from ncf.evaluation.ranking import SeenMovies
from ncf.evaluation.uncertainty import Uncertainty
from ncf.inference import checkpoint
from ncf.inference.recommender import Recommender, load
from ncf.inference.spread import interval_features
from ncf.inference.stars import member_stars
from ncf.models.conditioned import ConditionedModel
from ncf.models.ncf import NCF
from ncf.models.weights import snapshot
from ray_jobs.config import JobConfig, RecommendConfig
from ray_jobs.results.run import Workspace
from tests.ncf.worlds import training_rows

TITLES = ("Toy Story (1995)", "Heat (1995)", "Seven, Eight (1990)", "Fargo (1996)", "Dune (1984)")
IDS = (1, 6, 20, 30, 40)
NEWEST = 1_000_000
CLOSED = ModelConfig(
    inputs=("genres", "decade"),
    embedding_dim=3,
    hidden_dims=(4,),
    biases=("movie",),
    history=HistoryConfig(encoders=("gaussian-process",), vector_dim=4, linear_dim=2, rbf_dim=2),
)
PLAIN = ModelConfig(inputs=("user", "movie", "genres"), embedding_dim=3, hidden_dims=(4,))

FITTED = Preprocessor(
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


_ERRORS = {"rmse": 0.79, "mae": 0.6, "r2": 0.43, "num_ratings": 20_168}

METRICS: dict[str, Any] = {
    "dataset": "ml-latest-small",
    "synthetic": False,
    "split": {"kind": "random", "test": 0.2, "validation": 0.1, "seed": 42},
    "seed": 0,
    "config_hash": "0" * 64,
    "loss": "mse",
    "tuned_parameters": {"model.embedding_dim": 8, "model.hidden_dims": [64, 32]},
    "best_epoch": 2,
    "refit_on_validation": True,
    "streamed": [],
    "validation": {**_ERRORS, "decayed": {**_ERRORS, "r2": math.nan}},
    "test": {**_ERRORS, "decayed": _ERRORS},
    "epochs": [{"epoch": 1, "learning_rate": 0.01, "validation_rmse": 0.8}],
    "wall_seconds": 12.0,
    "versions": {"python": "3.11.9", "ray": "2.60.0"},
    "resources": {"CPU": 2.0},
    "hardware": {"processor": "Ä processor", "nodes": "1"},
    "raw": {
        "tmdb_coverage": {},
        "notices": ["a warning", MOVIELENS_CITATION, TMDB_ATTRIBUTION],
        "attribution": [MOVIELENS_CITATION, TMDB_ATTRIBUTION],
        "licence": "terms of the data",
    },
    "ranking": {
        "at": 10,
        "relevant_stars": 4.0,
        "num_users": 3,
        "model": {"ndcg": 0.1, "recall": 0.25, "map": 0.0},
        "popularity": None,
        "num_users_ranked": 3,
    },
    "members": [],
    "uncertainty": None,
}
"""Content of a ``metrics.json``, in its order."""


def kept(folder: Path, config: ModelConfig, preprocessor: Preprocessor = FITTED) -> Workspace:
    """A run whose checkpoint has random weights."""
    torch.manual_seed(0)
    network = NCF(config, preprocessor)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    network.init_output_bias(3.0)
    model = ConditionedModel(network)
    model.fit_history(training_rows(ROWS))
    experiment = ExperimentConfig(model=config)
    # No movie has three training ratings.
    every_movie = RecommendConfig(min_ratings=0)
    workspace = Workspace(JobConfig(storage=str(folder), name="made", recommend=every_movie))
    path = Path((workspace.run / "checkpoint").path)
    checkpoint.save(path, snapshot(network), experiment, preprocessor, {}, model.history)
    return workspace


def complete(workspace: Workspace, *, blended: bool = True) -> Workspace:
    """The same run, with a blend, intervals and what users have rated in its checkpoint."""
    folder = Path((workspace.run / "checkpoint").path)
    made = checkpoint.load(folder)
    factors = bayesian_factorization(
        ROWS, made.preprocessor, BayesianSettings(rank=1, warm_up=1, draws=2)
    )
    ends = made.preprocessor.rating_min, made.preprocessor.rating_max
    blend = Blend(Weights(3.0, (0.6, 0.5)), (("bayesian-factorization", factors),), *ends)
    made = replace(made, blend=blend if blended else None)
    features = interval_features(made, ROWS, member_stars(made, ROWS))
    uncertainty = Uncertainty.fit(features, np.array([0.5, -0.8, 0.1, -0.2]))
    rated = SeenMovies.of(ROWS.users.numpy(), ROWS.movies.numpy(), made.preprocessor.num_users)
    checkpoint.extend(folder, made.blend, uncertainty, rated)
    return workspace


def recommender(workspace: Workspace) -> Recommender:
    return load((workspace.run / "checkpoint").path)
