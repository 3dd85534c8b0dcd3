"""A run with a tiny choice model, and with or without a rating model of random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ncf.choice_config import ChoiceConfig, EaseConfig, ExpertsConfig, NetworkConfig
from ncf.config import ModelConfig
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Preprocessor
from ncf.inference import choice_checkpoint
from ncf.inference.choice_checkpoint import Member
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.ease import EasePath
from ncf.models.choice.experts import ProductOfExperts
from ncf.models.choice.network import NetworkChoiceModel, build_network
from ray_jobs.config import JobConfig
from ray_jobs.results.run import Workspace
from tests.ray_jobs.made import CLOSED, FITTED, METRICS, NEWEST, kept

NUM_MOVIES, NUM_USERS = 60, 12
TIMED = CLOSED.model_copy(update={"inputs": ("genres", "decade", "time")})
"""A Gaussian process that looks at times, as that of configs/models/gaussian-process.toml."""


def train() -> Interactions:
    """Random ratings; the last movies have none."""
    generator = np.random.default_rng(0)
    users, movies = np.nonzero(generator.random((NUM_USERS, NUM_MOVIES - 6)) < 0.3)
    stars = generator.integers(1, 11, len(users)) / 2
    times = generator.integers(0, NEWEST, len(users))
    return Interactions.of(10 * users + 10, movies, stars, times, NUM_MOVIES)


def catalogue() -> Preprocessor:
    """With movies that have genres at random."""
    generator = np.random.default_rng(1)
    movies = replace(
        FITTED.movies,
        ids=np.arange(NUM_MOVIES) * 10 + 1,
        titles=tuple(f"Movie {i} ({1980 + i % 30})" for i in range(NUM_MOVIES)),
        embedding_index=np.arange(NUM_MOVIES) + 1,
        genres=generator.random((NUM_MOVIES, 2)) < 0.5,
        decade=generator.integers(1, 3, NUM_MOVIES),
        numeric=np.zeros((NUM_MOVIES, 0), np.float32),
        train_counts=train().movie_counts(),
    )
    return replace(FITTED, user_ids=np.arange(NUM_USERS) * 10 + 10, movies=movies)


def kept_choices(
    folder: Path, rating_model: ModelConfig | None = None, member: Member = "experts"
) -> Workspace:
    """A run with a choice model, and with a rating model if its configuration is given."""
    preprocessor, known = catalogue(), train()
    workspace = Workspace(JobConfig(storage=str(folder), name="made"))
    if rating_model:
        workspace = kept(folder, rating_model, preprocessor)
    config = ChoiceConfig(
        member=member,
        ease=EaseConfig(ridges=(5.0,)),
        network=NetworkConfig(users=("history", "embedding"), dim=4),
        experts=ExpertsConfig(powers=(0.5,)),
    )
    nothing = Interactions.of([], [], [], [], NUM_MOVIES)
    path = Path(workspace.paths.choice_checkpoint.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    models = fitted(config, preprocessor, known)
    choice_checkpoint.save(path, models, config, preprocessor, known, nothing, {})
    return workspace


def fitted(
    config: ChoiceConfig, preprocessor: Preprocessor, known: Interactions
) -> dict[Member, ChoiceModel]:
    """All members; the network has random weights."""
    ease = EasePath(known, preprocessor, config.ease).at(5.0)
    network = build_network(config.network, preprocessor, known)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    of_network = NetworkChoiceModel(network.eval())
    experts = ProductOfExperts(ease, of_network, 0.5, config.experts.floor)
    return {"ease": ease, "network": of_network, "experts": experts}


_LIKED = {
    "num_users": 9,
    "num_ratings": 30,
    "metrics": {"ndcg@10": 0.31, "recall@10": 0.2},
    "by_activity": [],
    "by_popularity": [],
}

CHOICE_METRICS: dict[str, Any] = {
    key: METRICS[key]
    for key in ("dataset", "synthetic", "config_hash", "refit_on_validation", "wall_seconds")
} | {
    "member": "experts",
    "choice": {},
    "num_given": 0,
    "min_ratings": 3,
    "metric": "ndcg@10",
    "validation": None,
    "test": {"experts": {"liked": _LIKED, "all": None, "diversity": None}},
    "epochs": [],
    **{key: METRICS[key] for key in ("versions", "resources", "hardware", "raw", "split", "seed")},
}
"""Content of a ``choice_metrics.json``."""
