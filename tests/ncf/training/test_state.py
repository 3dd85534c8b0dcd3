"""Continuing an interrupted training equals training without interruption, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ncf.config import ExperimentConfig, HistoryConfig, ModelConfig, TrainConfig
from ncf.data.batches import RatingSource
from ncf.data.streaming import Streamed
from ncf.errors import CheckpointError
from ncf.models.targets import Objective
from ncf.training.loop import Training
from ncf.training.state import Epoch, FitResult, TrainingState, load_state, save_state
from ncf.training.trainer import build
from tests.ncf.prepared import write_prepared

HISTORY = HistoryConfig(
    encoders=("gaussian-process",), vector_dim=4, linear_dim=2, rbf_dim=2, chunk=16
)


def experiment(model: dict[str, Any], train: dict[str, Any]) -> ExperimentConfig:
    return ExperimentConfig(
        model=ModelConfig.model_validate({"embedding_dim": 4, "hidden_dims": (8,)} | model),
        train=TrainConfig.model_validate({"epochs": 5, "batch_size": 100, "seed": 3} | train),
    )


def training_of(
    config: ExperimentConfig, world: Any, rows: RatingSource, resume: TrainingState | None = None
) -> Training:
    objective = Objective(config.train, config.time_decay, world.preprocessor)
    model = build(config, world.preprocessor, rows)
    return Training(model, rows, world.validation, objective, resume=resume)


def run(
    config: ExperimentConfig, world: Any, rows: RatingSource, resume: TrainingState | None = None
) -> FitResult:
    training = training_of(config, world, rows, resume)
    for _ in training:
        pass
    return training.result


def run_with_states(
    config: ExperimentConfig, world: Any, rows: RatingSource
) -> tuple[FitResult, list[TrainingState]]:
    """The result, and the state after each epoch."""
    training = training_of(config, world, rows)
    states = [training.state() for _ in training]
    return training.result, states


def without_seconds(epochs: tuple[Epoch, ...]) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in epochs]


def assert_the_same(found: FitResult, expected: FitResult) -> None:
    assert without_seconds(found.epochs) == without_seconds(expected.epochs)
    assert found.best_epoch == expected.best_epoch
    for ours, theirs in ((found.last, expected.last), (found.best, expected.best)):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name


@pytest.mark.parametrize(
    ("model", "train"),
    [
        ({"dropout": 0.3}, {}),
        ({"dropout": 0.3, "biases": ("user", "movie")}, {"schedule": "plateau", "patience": 0}),
        ({"dropout": 0.3, "normalization": "batch"}, {"schedule": "one-cycle", "patience": 0}),
        ({"inputs": ("genres",), "biases": ("movie",), "history": HISTORY}, {"keep": "last"}),
        ({"gmf_dim": 4}, {"learning_rate": 0.2, "patience": 1, "weight_decay": 0.1}),
    ],
    ids=["dropout", "plateau", "batch normalisation", "Gaussian process", "early stopping"],
)
@pytest.mark.parametrize("after", [1, 2])
def test_continuing_equals_training_without_interruption(
    model: dict[str, Any], train: dict[str, Any], after: int, world: Any, tmp_path: Path
) -> None:
    config = experiment(model, train)
    training = training_of(config, world, world.train)
    for epoch in training:
        if epoch.number == after:
            save_state(training.state(), tmp_path / "state")
    expected = training.result
    torch.manual_seed(999)  # another process would have drawn other numbers by now
    found = run(config, world, world.train, resume=load_state(tmp_path / "state"))

    assert len(expected.epochs) > after
    assert_the_same(found, expected)


def test_streamed_rows_continue_in_the_same_order(world: Any, tmp_path: Path) -> None:
    config = experiment({"dropout": 0.3}, {})
    splits = {name: getattr(world, name) for name in ("train", "validation", "test")}
    prepared = write_prepared(tmp_path / "prepared", splits, world.preprocessor)

    def streamed() -> Streamed:
        return Streamed(prepared, "train", torch.device("cpu"), window=400)

    expected, states = run_with_states(config, world, streamed())
    found = run(config, world, streamed(), resume=states[1])

    assert_the_same(found, expected)


def test_a_finished_run_takes_no_further_step(world: Any) -> None:
    config = experiment({}, {"epochs": 2})
    expected, states = run_with_states(config, world, world.train)
    assert len(states) == 2

    training = training_of(config, world, world.train, resume=states[-1])

    assert list(training) == []
    assert_the_same(training.result, expected)


def test_taking_states_does_not_change_training(world: Any) -> None:
    config = experiment({"dropout": 0.3}, {"epochs": 3})

    watched, states = run_with_states(config, world, world.train)

    assert len(states) == 3
    assert_the_same(watched, run(config, world, world.train))


@pytest.fixture
def saved(world: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    config = experiment({}, {"epochs": 1})
    _, states = run_with_states(config, world, world.train)
    save_state(states[-1], folder)
    return folder


def test_a_missing_state_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("keep", [None, 0, 0.5])
def test_a_damaged_state_is_refused_with_what_to_do(
    name: str, keep: float | None, saved: Path
) -> None:
    content = (saved / name).read_bytes()
    (saved / name).unlink()
    if keep is not None:
        (saved / name).write_bytes(content[: int(keep * len(content))])

    with pytest.raises(CheckpointError, match=r"cannot continue from .*state: .* --force"):
        load_state(saved)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_state_with_one_other_byte_is_refused(name: str, saved: Path) -> None:
    content = bytearray((saved / name).read_bytes())
    content[-3] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot continue from .* --force"):
        load_state(saved)


def test_a_state_of_another_version_is_refused(saved: Path) -> None:
    content = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps(content | {"format_version": 1}))

    with pytest.raises(CheckpointError, match="format version 1, not 3"):
        load_state(saved)
