from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
import torch

from ncf.config import ExperimentConfig, ModelConfig, TimeDecayConfig
from ncf.data.batches import Batch
from ncf.evaluation import predictions
from ncf.evaluation.predictions import Predictions, evaluate, predict
from ncf.models.targets import Objective
from ncf.training.trainer import build


@pytest.mark.parametrize("apply_to", ["loss", "target"])
def test_every_row_is_predicted_as_if_it_were_alone(
    world: Any, apply_to: Literal["loss", "target"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "EVALUATION_CHUNK", 7)
    experiment = ExperimentConfig(
        model=ModelConfig(embedding_std=2.0), time_decay=TimeDecayConfig(apply_to=apply_to)
    )
    objective = Objective(experiment.train, experiment.time_decay, world.preprocessor)
    model, rows = build(experiment, world.preprocessor, world.train), world.test[:20]

    found = predict(model, rows, objective)

    low, high = world.preprocessor.rating_min, world.preprocessor.rating_max
    for row in range(20):
        one = rows[row : row + 1]
        with torch.no_grad():
            output = float(model.expected_ratings(one.users, one.movies, one.times))
        weight = float(one.weights)
        if apply_to == "target":
            stars, decayed = min(max(output / weight, low), high), output
        else:
            stars = min(max(output, low), high)
            decayed = stars * weight
        assert found.stars[row] == pytest.approx(stars, rel=1e-5)
        assert found.decayed[row] == pytest.approx(decayed, rel=1e-5)


@pytest.mark.parametrize("head", ["regression", "ordinal"])
def test_the_errors_of_the_predictions_are_those_of_the_evaluation(
    world: Any, head: Literal["regression", "ordinal"]
) -> None:
    experiment = ExperimentConfig(model=ModelConfig(head=head))
    objective = Objective(experiment.train, experiment.time_decay, world.preprocessor)
    model = build(experiment, world.preprocessor, world.train)

    found = predict(model, world.test, objective)

    scores = evaluate(model, world.test, objective)
    actual = world.test.ratings.numpy()
    assert np.sqrt(np.mean((found.stars - actual) ** 2)) == pytest.approx(scores.stars.rmse)
    decayed = world.test.weights.numpy() * actual
    assert np.mean(np.abs(found.decayed - decayed)) == pytest.approx(scores.decayed.mae)


def test_predictions_survive_the_way_through_a_table() -> None:
    written = Predictions(np.array([1.5, 4], np.float32), np.array([0.5, 2], np.float32))

    table = written.to_arrow(np.array([7, 9]))
    read = Predictions.from_arrow(table)

    assert table["row"].to_pylist() == [7, 9]
    assert table.schema.field("stars").type == pa.float32()
    assert read.on("stars").tolist() == [1.5, 4]
    assert read.on("decayed").tolist() == [0.5, 2]


def test_a_mean_prediction_and_its_scores(make_rows: Callable[..., Batch]) -> None:
    rows = make_rows([1, 2], [0, 1], [4.0, 1.0])
    rows = dataclasses.replace(rows, weights=torch.tensor([1.0, 0.5]))
    first = Predictions(np.array([3.0, 2.0], np.float32), np.array([3.0, 1.0], np.float32))
    second = Predictions(np.array([4.0, 3.0], np.float32), np.array([4.0, 1.5], np.float32))

    scores = Predictions.mean([first, second]).score(rows)

    # In stars 3.5 and 2.5 instead of 4 and 1; decayed 3.5 and 1.25 instead of 4 and 0.5.
    assert scores.stars.mae == pytest.approx((0.5 + 1.5) / 2)
    assert scores.stars.rmse == pytest.approx(((0.25 + 2.25) / 2) ** 0.5)
    assert scores.decayed.mae == pytest.approx((0.5 + 0.75) / 2)
