"""Small models that are trained in a second, for tests; not a test itself."""

from __future__ import annotations

from typing import Any, Final

import torch

from ncf.config import ExperimentConfig, ModelConfig, TimeDecayConfig, TrainConfig
from ncf.data.batches import Batch
from ncf.evaluation.predictions import evaluate
from ncf.models.conditioned import ConditionedModel
from ncf.models.targets import Objective
from ncf.training.loop import fit
from ncf.training.trainer import build
from tests.ncf.worlds import World

HISTORY: Final[dict[str, Any]] = {
    "vector_dim": 4, "linear_dim": 2, "rbf_dim": 2, "chunk": 16,
}  # fmt: skip
_MODEL: Final = {"embedding_dim": 4, "hidden_dims": (16,), "dropout": 0.0}
_TRAIN: Final = {
    "learning_rate": 0.02,
    "embedding_l2": 1.0,
    "bias_l2": 1.0,
    "history_l2": 1.0,
    "batch_size": 256,
    "patience": 0,
}
NO_RIDGES: Final = {"embedding_l2": 0.0, "bias_l2": 0.0, "history_l2": 0.0}


def experiment(model: dict[str, Any], train: dict[str, Any]) -> ExperimentConfig:
    """These settings, and for the others what suits a small model."""
    return ExperimentConfig(
        model=ModelConfig(**{**_MODEL, **model}),
        train=TrainConfig(**{**_TRAIN, **train}),
        time_decay=TimeDecayConfig(apply_to="none"),
    )


def objective_of(config: ExperimentConfig, world: World) -> Objective:
    return Objective(config.train, config.time_decay, world.preprocessor)


def trained(config: ExperimentConfig, world: World, rows: Batch) -> ConditionedModel:
    """A model that has learned from ``rows``, ready to predict."""
    model = build(config, world.preprocessor, rows)
    fit(model, rows, None, objective_of(config, world))
    return model.eval()


def error_of(model: ConditionedModel, config: ExperimentConfig, world: World) -> float:
    """RMSE in stars on the world's test rows."""
    return evaluate(model, world.test, objective_of(config, world)).stars.rmse


def predict(model: ConditionedModel, rows: Batch) -> torch.Tensor:
    """``[B]`` predictions."""
    with torch.no_grad():
        return model.expected_ratings(rows.users, rows.movies, rows.times)
