"""Training: what it minimises, that it learns, and that it continues where it was."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ncf.choice_config import NetworkConfig
from ncf.data.interactions import NEW_USER
from ncf.data.sampling import SINGLE_WORKER
from ncf.errors import CheckpointError, DivergedError
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.network import ChoiceNetwork, Logits, NetworkChoiceModel, build_network
from ncf.registry import CHOICE_LOSSES
from ncf.training.choice.batches import ChoiceBatches
from ncf.training.choice.loop import ChoiceTraining
from ncf.training.choice.losses import Softmax, get_loss
from ncf.training.choice.masks import Mask
from ncf.training.choice.state import (
    ChoiceFitResult,
    ChoiceTrainingState,
    load_state,
    save_state,
)
from tests.ncf.training.choice.clusters import Clusters, clusters, randomise
from tests.ncf.training.choice.workers import train_and_write

PROGRAM = Path(__file__).parent / "workers.py"
REPOSITORY = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def world() -> Clusters:
    return clusters()


def config_of(**settings: Any) -> NetworkConfig:
    return NetworkConfig.model_validate({"dim": 4, "batch_users": 20, "epochs": 4} | settings)


def training_of(
    world: Clusters, config: NetworkConfig, mask: Mask = "random", **arguments: Any
) -> ChoiceTraining:
    network = build_network(config, world.preprocessor, world.train)
    return ChoiceTraining(network, world.train, config, mask, **arguments)


class Ranked:
    """Returns these values of the metric, one after the other."""

    def __init__(self, *values: float) -> None:
        self.left = list(values)

    def __call__(self, model: ChoiceModel) -> dict[str, float]:
        return {"ndcg@10": self.left.pop(0), "recall@10": 0.5}


def run(training: ChoiceTraining) -> ChoiceFitResult:
    for _ in training:
        pass
    return training.result


def assert_equal_weights(found: ChoiceFitResult, expected: ChoiceFitResult) -> None:
    for name, value in expected.last.items():
        assert torch.equal(found.last[name], value), name
    for name, value in expected.best.items():
        assert torch.equal(found.best[name], value), name


def hits_after_training(
    world: Clusters, config: NetworkConfig, mask: Mask, users: np.ndarray
) -> tuple[float, float]:
    """Before, and after training."""
    training = training_of(world, config, mask)
    known = replace(world.train, users=users)
    before = world.hits(NetworkChoiceModel(training.model).scores(known))
    epochs = list(training)
    assert epochs[-1].train_loss < epochs[0].train_loss
    return before, world.hits(NetworkChoiceModel(training.model).scores(known))


@pytest.mark.parametrize("mask", ["random", "forward"])
@pytest.mark.parametrize("loss", CHOICE_LOSSES)
def test_movies_of_the_users_kind_rank_higher_after_training(loss: str, mask: Mask) -> None:
    world = clusters(num_users=120)
    config = config_of(loss=loss, dim=8, epochs=20, learning_rate=0.03, l2=10.0)
    as_new = np.full(120, NEW_USER)
    before, after = hits_after_training(world, config, mask, as_new)
    assert before < 0.7
    assert after > 0.95


def test_vectors_of_users_alone_learn_as_well() -> None:
    world = clusters(num_users=120)
    config = config_of(users=("embedding",), dim=8, epochs=40, learning_rate=0.03, l2=2.0)
    before, after = hits_after_training(world, config, "random", world.train.users)
    assert before < 0.7
    assert after > 0.9


def gradient_of_objective(
    network: ChoiceNetwork, world: Clusters, config: NetworkConfig
) -> torch.Tensor:
    """``[P]`` of the only step of the first epoch, as the module's docstring has it."""
    (batch,) = ChoiceBatches(world.train, network, config, "random").of_epoch(1)
    loss = Softmax(config, world.train.movie_counts(), torch.device("cpu"))
    each = loss.of_choices(network(batch.known, batch.choices), batch, None)
    scale = 6 ** (1 - config.user_power) / world.train.num_ratings  # users have 12 ratings
    own = [network.movies_out.own]
    own += [] if network.movies_in is None else [network.movies_in.own]
    own += [] if network.user_vectors is None else [network.user_vectors]
    penalty = config.l2 / 2 * torch.stack([part.square().sum() for part in own]).sum()
    penalty = penalty + config.bias_l2 * network.bias.deviation.square().sum()
    total = (each * batch.weights).sum() / 60 + scale * penalty
    gradients = torch.autograd.grad(total, list(network.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("users", [("history",), ("embedding",), ("history", "embedding")])
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_a_step_follows_the_gradient_of_the_objective(
    world: Clusters, users: tuple[str, ...], power: float
) -> None:
    config = config_of(users=users, user_power=power, batch_users=100, epochs=1)
    network = build_network(config, world.preprocessor, world.train)
    randomise(network)
    expected = gradient_of_objective(network, world, config)
    training = ChoiceTraining(network, world.train, config, "random")
    run(training)
    # Adam's mean of gradients is a tenth of the first one.
    torch.testing.assert_close(10 * training.state().optimizer["means"], expected)


@pytest.mark.parametrize("loss", CHOICE_LOSSES)
def test_gradients_of_two_shards_add_up_to_those_of_the_batch(world: Clusters, loss: str) -> None:
    config = config_of(loss=loss)
    network = build_network(config, world.preprocessor, world.train)
    randomise(network)
    of_loss = get_loss(config, world.train.movie_counts(), torch.device("cpu"))
    batch = next(iter(ChoiceBatches(world.train, network, config, "random").of_epoch(1)))
    drawn = of_loss.draw(batch, np.random.default_rng(0))

    def gradient(wanted: torch.Tensor) -> torch.Tensor:
        """Of the losses of some users' choices."""
        network.zero_grad()
        candidates = None if drawn is None else drawn.movies
        part = replace(batch, weights=batch.weights * wanted[batch.choices.rows])
        logits: Logits = network(batch.known, batch.choices, candidates)
        of_loss.total(logits, part, drawn).backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        return torch.cat([g.flatten() for g in gradients])

    is_even = torch.arange(20) % 2 == 0
    total = gradient(torch.ones(20))
    torch.testing.assert_close(gradient(is_even) + gradient(~is_even), total)


def run_in_processes(folder: Path, size: int, *losses: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), str(rank), str(size), *losses],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, "\n".join(outputs)


@pytest.mark.system
def test_two_workers_give_the_weights_of_one(tmp_path: Path) -> None:
    losses = ("softmax", "bpr")
    for loss in losses:
        train_and_write(tmp_path, loss, SINGLE_WORKER)
    run_in_processes(tmp_path, 2, *losses)

    def found(loss: str, size: int, rank: int) -> dict[str, torch.Tensor]:
        return load_file(tmp_path / f"{loss}-{size}-{rank}.safetensors")

    for loss in losses:
        for name, value in found(loss, 2, 0).items():
            assert torch.equal(found(loss, 2, 1)[name], value), name
    for name, value in found("softmax", 2, 0).items():
        torch.testing.assert_close(found("softmax", 1, 0)[name], value, rtol=1e-3, atol=1e-4)
    # Each worker draws its own negatives.
    assert not torch.allclose(found("bpr", 1, 0)["losses"], found("bpr", 2, 0)["losses"])


@pytest.mark.parametrize("loss", CHOICE_LOSSES)
@pytest.mark.parametrize("mask", ["random", "forward"])
def test_an_interrupted_training_continues_bit_for_bit(
    world: Clusters, tmp_path: Path, loss: str, mask: Mask
) -> None:
    config = config_of(loss=loss, evaluate_every=1, users=("history", "embedding"))
    values = (0.1, 0.3, 0.2, 0.15)
    whole = training_of(world, config, mask, evaluate=Ranked(*values))
    for number, _ in enumerate(whole, start=1):
        save_state(whole.state(), tmp_path / str(number))
    for number in (1, 3):
        state = load_state(tmp_path / str(number))
        rest = Ranked(*values[number:])
        resumed = training_of(world, config, mask, evaluate=rest, resume=state)
        assert_equal_weights(run(resumed), whole.result)
        assert resumed.result.best_epoch == whole.result.best_epoch == 2
        kept = [(e.number, e.train_loss, e.validation) for e in resumed.result.epochs]
        assert kept == [(e.number, e.train_loss, e.validation) for e in whole.result.epochs]


def test_the_seed_determines_the_result(world: Clusters) -> None:
    first, same = (run(training_of(world, config_of())) for _ in range(2))
    assert_equal_weights(same, first)
    other = run(training_of(world, config_of(seed=1)))
    assert not torch.equal(other.last["movies_out.own"], first.last["movies_out.own"])


def test_best_and_last_weights(world: Clusters) -> None:
    training = training_of(world, config_of(evaluate_every=2), evaluate=Ranked(0.4, 0.3))
    weights, epochs = [], []
    for epoch in training:
        epochs.append(epoch)
        weights.append(training.model.movies_out.own.detach().clone())
    assert [epoch.validation is not None for epoch in epochs] == [False, True, False, True]
    # Before any epoch is ranked, the last is the best.
    assert [epoch.is_best for epoch in epochs] == [True, True, False, False]
    result = training.result
    assert result.best_epoch == 2
    assert torch.equal(result.best["movies_out.own"], weights[1])
    assert torch.equal(result.last["movies_out.own"], weights[3])


def test_without_evaluation_the_last_epoch_is_the_best(world: Clusters) -> None:
    result = run(training_of(world, config_of(patience=1)))
    assert result.best_epoch == len(result.epochs) == 4
    assert result.best is result.last


def test_the_metric_is_chosen_by_name(world: Clusters) -> None:
    config = config_of(epochs=2, evaluate_every=1)
    training = training_of(world, config, evaluate=Ranked(0.1, 0.2), metric="recall@10")
    assert run(training).best_epoch == 1  # the second is no better


def test_the_last_epoch_is_always_ranked(world: Clusters) -> None:
    config = config_of(epochs=9, stop_after=3, evaluate_every=2)
    result = run(training_of(world, config, evaluate=Ranked(0.1, 0.2)))
    assert [epoch.validation is not None for epoch in result.epochs] == [False, True, True]


def test_patience_ends_training(world: Clusters) -> None:
    config = config_of(epochs=20, evaluate_every=2, patience=3)
    ranked = Ranked(0.1, 0.3, 0.2, 0.25)
    result = run(training_of(world, config, evaluate=ranked))
    assert result.best_epoch == 4
    assert len(result.epochs) == 8


def test_stopping_after_an_epoch_keeps_the_schedule(world: Clusters) -> None:
    whole, stopped = (
        run(training_of(world, config_of(epochs=5, **settings)))
        for settings in ({}, {"stop_after": 2})
    )
    assert [e.train_loss for e in stopped.epochs] == [e.train_loss for e in whole.epochs[:2]]
    assert [e.learning_rate for e in stopped.epochs] == [e.learning_rate for e in whole.epochs[:2]]


def test_the_learning_rate_falls_along_a_cosine(world: Clusters) -> None:
    result = run(training_of(world, config_of(learning_rate=0.02)))
    # Three steps in each of four epochs.
    expected = [0.01 * (1 + math.cos(math.pi * step / 12)) for step in (2, 5, 8, 11)]
    assert [epoch.learning_rate for epoch in result.epochs] == pytest.approx(expected)


def test_evaluation_sees_the_weights_of_the_epoch(world: Clusters) -> None:
    scores = []

    def evaluate(model: ChoiceModel) -> dict[str, float]:
        scores.append(model.scores(world.train))
        return {"ndcg@10": 0.0}

    config = config_of(epochs=2, evaluate_every=1)
    training = training_of(world, config, evaluate=evaluate)
    for number, _ in enumerate(training):
        expected = NetworkChoiceModel(training.model).scores(world.train)
        assert torch.equal(scores[number], expected)
    assert not torch.allclose(scores[0], scores[1])


def test_a_diverged_training_says_what_to_do(world: Clusters) -> None:
    training = training_of(world, config_of())
    with torch.no_grad():
        training.model.constant.fill_(torch.inf)
    with pytest.raises(DivergedError, match=r"epoch 1 is nan.*choice\.network\.learning_rate"):
        run(training)


def test_epochs_as_flat_records(world: Clusters) -> None:
    result = run(training_of(world, config_of(epochs=1), evaluate=Ranked(0.25)))
    record = result.epochs[0].as_dict()
    assert record["epoch"] == 1
    assert record["validation_ndcg@10"] == 0.25
    unranked = run(training_of(world, config_of(epochs=1))).epochs[0].as_dict()
    assert not [name for name in unranked if name.startswith("validation")]


def test_a_saved_state_is_read_as_it_was(world: Clusters, tmp_path: Path, assert_same: Any) -> None:
    training = training_of(world, config_of(epochs=2, evaluate_every=1), evaluate=Ranked(0.2, 0.1))
    run(training)
    state = training.state()
    save_state(state, tmp_path / "state")
    found = load_state(tmp_path / "state")
    assert isinstance(found, ChoiceTrainingState)
    assert found.result.epochs == state.result.epochs
    assert found.result.best_epoch == 1
    assert_equal_weights(found.result, state.result)
    for name, value in state.optimizer.items():
        assert torch.equal(found.optimizer[name], value)
    assert load_state(tmp_path / "absent") is None


@pytest.mark.parametrize("damage", ["version", "record", "tensors"])
def test_a_damaged_state(world: Clusters, tmp_path: Path, damage: str) -> None:
    training = training_of(world, config_of(epochs=1))
    run(training)
    save_state(training.state(), tmp_path)
    file = tmp_path / "state.json"
    content = json.loads(file.read_text())
    if damage == "version":
        file.write_text(json.dumps(content | {"format_version": 0}))
    elif damage == "record":
        file.write_text(json.dumps(content | {"epochs": [{"number": 1}]}))
    else:
        (tmp_path / "state.safetensors").write_bytes(b"?")
    with pytest.raises(CheckpointError, match="Start the training again"):
        load_state(tmp_path)


@pytest.mark.parametrize("loss", CHOICE_LOSSES)
def test_all_tensors_of_a_step_are_on_the_device_of_the_network(world: Clusters, loss: str) -> None:
    """With torch's device ``meta``, which has no data and refuses tensors of other devices."""
    config = config_of(loss=loss, users=("history", "embedding"))
    network = build_network(config, world.preprocessor, world.train)
    cpu_batch = next(iter(ChoiceBatches(world.train, network, config, "random").of_epoch(1)))
    network.to("meta")
    period = torch.tensor([world.train.times.min(), world.train.times.max()])
    network.period = period  # is read as numbers
    batches = ChoiceBatches(world.train, network, config, "random")
    batch = next(iter(batches.of_epoch(1)))
    assert {t.device.type for t in (*batch.known, *batch.choices, batch.weights)} == {"meta"}
    assert batch.known_rows.shape == cpu_batch.known_rows.shape
    of_loss = get_loss(config, world.train.movie_counts(), network.device)
    drawn = of_loss.draw(batch, np.random.default_rng(0))
    logits = network(batch.known, batch.choices, None if drawn is None else drawn.movies)
    total = of_loss.total(logits, batch, drawn)
    total.backward()
    assert all(p.grad is not None and p.grad.is_meta for p in network.parameters())
