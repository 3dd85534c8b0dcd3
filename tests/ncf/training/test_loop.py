from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from torch.nn import functional

from ncf.baselines import tuned_damped_bias
from ncf.config import ExperimentConfig, ModelConfig, TimeDecayConfig, TrainConfig
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor
from ncf.errors import DivergedError
from ncf.evaluation.metrics import METRICS
from ncf.evaluation.predictions import evaluate
from ncf.models.conditioned import ConditionedModel
from ncf.models.targets import Objective
from ncf.models.weights import Weights, snapshot
from ncf.training.loop import Training, fit
from ncf.training.parallel import data_parallel_pays_off
from ncf.training.state import FitResult
from ncf.training.trainer import build

ApplyTo = Literal["loss", "target", "none"]
STEADY: dict[str, Any] = {"patience": 0, "schedule": "constant", "embedding_l2": 0.0}
"""No early stopping, no schedule, no ridge: for tests of something else."""


def experiment(
    *, model: dict[str, Any] | None = None, apply_to: ApplyTo = "none", **train: Any
) -> ExperimentConfig:
    """A small network without dropout."""
    layers = {"embedding_dim": 8, "hidden_dims": (32, 16), "dropout": 0.0, **(model or {})}
    return ExperimentConfig(
        model=ModelConfig.model_validate(layers),
        train=TrainConfig.model_validate(train),
        time_decay=TimeDecayConfig(apply_to=apply_to),
    )


def objective_of(config: ExperimentConfig, preprocessor: Preprocessor) -> Objective:
    return Objective(config.train, config.time_decay, preprocessor)


def trained(
    config: ExperimentConfig,
    preprocessor: Preprocessor,
    train: Batch,
    validation: Batch | None = None,
) -> tuple[ConditionedModel, FitResult]:
    model = build(config, preprocessor, train)
    return model, fit(model, train, validation, objective_of(config, preprocessor))


def assert_equal_weights(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.fixture
def rows(make_rows: Callable[..., Batch]) -> Batch:
    """Seven ratings of the hand-written catalogue."""
    return make_rows(
        [1, 1, 1, 2, 2, 3, 3],
        [0, 1, 2, 0, 1, 0, 2],
        [4.0, 1.0, 3.5, 2.0, 5.0, 3.0, 0.5],
        [1.0, 0.5, 0.25, 0.8, 0.4, 0.9, 0.1],
    )


# -- what it learns --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "l1", "smooth_l1"])
def test_a_small_batch_is_overfitted(loss: str, preprocessor: Preprocessor, rows: Batch) -> None:
    config = experiment(
        loss=loss, epochs=300, learning_rate=0.02, batch_size=4, patience=0, embedding_l2=0
    )
    model, result = trained(config, preprocessor, rows)
    assert evaluate(model, rows, objective_of(config, preprocessor)).stars.rmse < 0.02
    assert result.epochs[-1].train_loss < 0.02


def test_a_planted_signal_is_recovered_down_to_the_noise(world: Any) -> None:
    config = experiment(epochs=12, learning_rate=0.02, batch_size=128, embedding_l2=5.0, patience=0)
    model, result = trained(config, world.preprocessor, world.train, world.validation)
    objective = objective_of(config, world.preprocessor)
    rmse = evaluate(with_weights(model, result.best), world.test, objective).stars.rmse
    bias = tuned_damped_bias(world.train, world.validation, world.preprocessor)
    bias_rmse = bias.score(world.test, world.preprocessor).stars.rmse
    # The noise is 0.3, the taste that biases cannot express 0.7: sqrt(0.3² + 0.7²) = 0.76.
    assert 0.71 < bias_rmse < 0.82
    # Below the noise a figure would be too good to be true.
    assert 0.28 < rmse < 0.34


@pytest.mark.parametrize("apply_to", ["loss", "target"])
def test_a_planted_signal_is_recovered_with_time_decay(world: Any, apply_to: ApplyTo) -> None:
    # The weights are noise to the model, so a target of rating * weight cannot be predicted well:
    # but with equal weights it can, up to their factor.
    halved = replace(world.train, weights=torch.full_like(world.train.weights, 0.5))
    test = replace(world.test, weights=torch.full_like(world.test.weights, 0.5))
    config = experiment(
        apply_to=apply_to,
        epochs=12,
        learning_rate=0.02,
        batch_size=128,
        embedding_l2=5.0,
        patience=0,
    )
    model, _ = trained(config, world.preprocessor, halved)
    scores = evaluate(model, test, objective_of(config, world.preprocessor))
    assert scores.stars.rmse < 0.34
    # Target mode leaves what it predicts unclipped, hence not exactly half.
    assert scores.decayed.rmse == pytest.approx(scores.stars.rmse / 2, rel=1e-2)


# -- reproducibility -------------------------------------------------------------------------------


def test_a_seed_determines_the_weights_to_the_last_bit(world: Any) -> None:
    def weights(seed: int) -> Weights:
        config = experiment(model={"dropout": 0.3}, epochs=2, batch_size=256, seed=seed)
        return trained(config, world.preprocessor, world.train, world.validation)[1].last

    first, again, other = weights(1), weights(1), weights(2)
    assert_equal_weights(again, first)
    assert all(not torch.equal(other[name], value) for name, value in first.items())


def test_earlier_random_numbers_do_not_matter(preprocessor: Preprocessor, rows: Batch) -> None:
    config = experiment(model={"dropout": 0.3}, epochs=2, batch_size=3)
    first = trained(config, preprocessor, rows)[1].last
    torch.manual_seed(123)
    torch.rand(17)
    assert_equal_weights(trained(config, preprocessor, rows)[1].last, first)


def test_an_untrained_model_starts_at_the_weighted_mean_target(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    def start(apply_to: ApplyTo) -> float:
        return build(experiment(apply_to=apply_to), preprocessor, rows).network.output.bias.item()

    ratings, weights = rows.ratings.numpy(), rows.weights.numpy()
    assert start("none") == pytest.approx(ratings.mean(), rel=1e-6)
    assert start("loss") == pytest.approx(np.average(ratings, weights=weights), rel=1e-6)
    assert start("target") == pytest.approx((ratings * weights).mean(), rel=1e-6)


# -- the best epoch --------------------------------------------------------------------------------


def test_early_stopping_stops_and_keeps_the_best_weights(world: Any) -> None:
    config = experiment(
        epochs=40,
        learning_rate=0.02,
        batch_size=64,
        patience=3,
        embedding_l2=0,
        schedule="constant",
    )
    small = world.train[:1500]  # few rows and no ridge, so it soon overfits
    model, result = trained(config, world.preprocessor, small, world.validation)
    errors = [e.validation.stars.rmse for e in result.epochs if e.validation]
    assert len(errors) == len(result.epochs) < 40
    assert result.best_epoch == int(np.argmin(errors)) + 1
    assert result.best_epoch == len(result.epochs) - 3
    assert errors[-1] > errors[result.best_epoch - 1] + 1e-3
    is_best = [e.is_best for e in result.epochs]
    assert is_best == [errors[i] < min(errors[:i], default=math.inf) for i in range(len(errors))]
    for weights, expected in ((result.best, min(errors)), (result.last, errors[-1])):
        assert predicted_rmse(with_weights(model, weights), world) == pytest.approx(expected)
    assert_equal_weights(snapshot(model.network), result.last)


def with_weights(model: ConditionedModel, weights: Weights) -> ConditionedModel:
    other = copy.deepcopy(model)
    other.network.load_state_dict(weights)
    return other


def predicted_rmse(model: ConditionedModel, world: Any) -> float:
    """Validation error in stars, without ``evaluate``."""
    with torch.no_grad():
        rows = world.validation.users, world.validation.movies
        outputs = model.eval().expected_ratings(*rows).double().numpy()
    stars = np.clip(outputs, world.preprocessor.rating_min, world.preprocessor.rating_max)
    return math.sqrt(mean_squared_error(world.validation.ratings.double().numpy(), stars))


def test_without_patience_all_epochs_are_run(world: Any) -> None:
    config = experiment(epochs=8, learning_rate=0.05, batch_size=64, patience=0, embedding_l2=0)
    _, result = trained(config, world.preprocessor, world.train[:500], world.validation)
    assert [epoch.number for epoch in result.epochs] == list(range(1, 9))
    assert result.best_epoch < 8


def test_divergence_is_an_error_that_says_what_to_do(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    config = experiment(epochs=20, learning_rate=1e30, batch_size=3, schedule="constant")
    with pytest.raises(DivergedError, match=r"diverged: the error of epoch \d+ is .*learning_rate"):
        trained(config, preprocessor, rows, None)


def test_without_validation_the_last_epoch_is_the_best(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    config = experiment(epochs=5, patience=2, batch_size=3)
    model, result = trained(config, preprocessor, rows, None)
    assert (len(result.epochs), result.best_epoch) == (5, 5)
    assert all(epoch.is_best and epoch.validation is None for epoch in result.epochs)
    assert_equal_weights(result.best, result.last)
    assert_equal_weights(snapshot(model.network), result.last)


def test_in_target_mode_too_the_error_in_stars_picks_the_best_epoch(world: Any) -> None:
    config = experiment(apply_to="target", epochs=6, learning_rate=0.02, batch_size=64, patience=0)
    _, result = trained(config, world.preprocessor, world.train[:1500], world.validation)
    scores = [epoch.validation for epoch in result.epochs if epoch.validation]
    decayed = [s.decayed.rmse for s in scores]
    assert result.best_epoch == int(np.argmin([s.stars.rmse for s in scores])) + 1
    # With random weights the best epochs of the two scales differ.
    assert result.best_epoch != int(np.argmin(decayed)) + 1


@pytest.mark.parametrize("name", ["mae", "r2", "decayed_rmse"])
def test_another_metric_picks_the_best_epoch_and_lowers_the_rate(name: str, world: Any) -> None:
    config = experiment(
        epochs=8, learning_rate=0.02, batch_size=64, patience=2, schedule="plateau",
        embedding_l2=0.0,
    )  # fmt: skip
    model = build(config, world.preprocessor, world.train[:1500])
    metric = METRICS[name]
    objective = objective_of(config, world.preprocessor)
    result = fit(model, world.train[:1500], world.validation, objective, metric=metric)
    values = [epoch.as_dict()[f"validation_{name}"] for epoch in result.epochs]
    best = max(values) if metric.direction == "max" else min(values)
    assert result.best_epoch == values.index(best) + 1
    assert len(values) in (8, result.best_epoch + 2)
    rate, so_far = 0.02, values[0]
    for value, epoch in zip(values[1:], result.epochs[1:], strict=True):
        # By torch's definition, better is better by a ten-thousandth.
        improved = value > so_far * (1 + 1e-4) if name == "r2" else value < so_far * (1 - 1e-4)
        so_far, rate = (value, rate) if improved else (so_far, rate / 2)
        assert epoch.learning_rate == pytest.approx(rate)


def test_validating_after_each_epoch_does_not_change_what_is_learned(world: Any) -> None:
    """It turns dropout off, and the next epoch must turn it on again."""
    config = experiment(model={"dropout": 0.5}, epochs=3, batch_size=256, patience=0)
    with_validation = trained(config, world.preprocessor, world.train, world.validation)[1].last
    assert_equal_weights(with_validation, trained(config, world.preprocessor, world.train)[1].last)


def test_training_yields_each_epoch_with_the_result_so_far(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    config = experiment(epochs=3, batch_size=3, patience=0)
    model = build(config, preprocessor, rows)
    training = Training(model, rows, rows, objective_of(config, preprocessor))
    heard = [(epoch, training.result, snapshot(model.network)) for epoch in training]
    result = training.result
    assert [epoch for epoch, _, _ in heard] == list(result.epochs)
    assert [so_far.epochs for _, so_far, _ in heard] == [result.epochs[:n] for n in (1, 2, 3)]
    for _, so_far, weights in heard:
        assert_equal_weights(so_far.last, weights)
    # A later epoch must not change the weights that were handed out earlier.
    assert not torch.equal(heard[0][1].last["output.weight"], result.last["output.weight"])


def test_an_epoch_as_a_flat_record(preprocessor: Preprocessor, rows: Batch) -> None:
    config = experiment(epochs=1, patience=0)
    model = build(config, preprocessor, rows)
    epoch = fit(model, rows, rows, objective_of(config, preprocessor)).epochs[0]
    scores = evaluate(model, rows, objective_of(config, preprocessor))
    assert epoch.seconds > 0
    assert epoch.as_dict() == {
        "epoch": 1,
        "train_loss": epoch.train_loss,
        "learning_rate": epoch.learning_rate,
        "seconds": epoch.seconds,
        "validation_rmse": scores.stars.rmse,
        "validation_mae": scores.stars.mae,
        "validation_r2": scores.stars.r2,
        "validation_decayed_rmse": scores.decayed.rmse,
        "validation_decayed_mae": scores.decayed.mae,
        "validation_decayed_r2": scores.decayed.r2,
    }


# -- schedule --------------------------------------------------------------------------------------


def rates(preprocessor: Preprocessor, rows: Batch, **settings: Any) -> list[float]:
    config = experiment(learning_rate=0.01, batch_size=3, patience=0, **settings)
    return [epoch.learning_rate for epoch in trained(config, preprocessor, rows)[1].epochs]


def test_a_constant_rate_stays(preprocessor: Preprocessor, rows: Batch) -> None:
    assert rates(preprocessor, rows, schedule="constant", epochs=3) == [0.01] * 3


def test_a_cosine_rate_falls_to_zero_by_hand(preprocessor: Preprocessor, rows: Batch) -> None:
    # Seven rows make three steps an epoch; half a cosine at 1/4, 1/2, 3/4 and the end.
    expected = [0.01 * (1 + c) / 2 for c in (math.sqrt(0.5), 0, -math.sqrt(0.5), -1)]
    found = rates(preprocessor, rows, schedule="cosine", epochs=4)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_one_cycle_rate_rises_and_falls_by_hand(preprocessor: Preprocessor, rows: Batch) -> None:
    # Thirty steps: the first nine lead from 4 % to the whole, a cosine over 21 from there to zero.
    found = rates(preprocessor, rows, schedule="one-cycle", epochs=10)
    rising = [0.01 * (0.04 + 0.96 * step / 9) for step in (3, 6)]
    falling = [0.005 * (1 + math.cos(math.pi * step / 21)) for step in (0, 3, 6, 9, 12, 15, 18, 21)]
    assert found == pytest.approx(rising + falling, rel=1e-9, abs=1e-12)


def test_the_last_epoch_can_be_the_result_instead_of_the_best(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    contradiction = replace(rows, ratings=5.5 - rows.ratings)
    settings = STEADY | {"epochs": 8, "batch_size": 3, "learning_rate": 0.02}
    _, best = trained(experiment(**settings), preprocessor, rows, contradiction)
    _, last = trained(experiment(keep="last", **settings), preprocessor, rows, contradiction)
    assert best.best_epoch < 8
    assert last.best_epoch == 8
    assert_equal_weights(last.best, last.last)
    assert_equal_weights(last.last, best.last)


def test_a_plateau_halves_the_rate(preprocessor: Preprocessor, rows: Batch) -> None:
    config = experiment(
        learning_rate=0.01, batch_size=7, patience=0, schedule="plateau", epochs=12,
        embedding_l2=0.0,
    )  # fmt: skip
    # Ratings that contradict the training rows: the better those are known, the worse these.
    contradiction = replace(rows, ratings=5.5 - rows.ratings)
    epochs = trained(config, preprocessor, rows, contradiction)[1].epochs
    best, rate = math.inf, 0.01
    for epoch in epochs:
        assert epoch.validation is not None
        error = epoch.validation.stars.rmse
        # By torch's definition, better is better by a ten-thousandth.
        if error < best * (1 - 1e-4):
            best = error
        else:
            rate /= 2
        assert epoch.learning_rate == pytest.approx(rate)
    assert rate < 0.01 / 8


def test_stopping_after_an_epoch_keeps_the_horizon_of_the_schedule(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    whole = rates(preprocessor, rows, schedule="cosine", epochs=4)
    assert rates(preprocessor, rows, schedule="cosine", epochs=4, stop_after=2) == whole[:2]


def test_the_first_epochs_are_the_same_whether_or_not_more_follow(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    config = experiment(epochs=4, batch_size=3, patience=0)
    model = build(config, preprocessor, rows)
    training = Training(model, rows, None, objective_of(config, preprocessor))
    seen = [training.result.last for _ in training]
    stopped = experiment(epochs=4, stop_after=2, batch_size=3, patience=0)
    assert_equal_weights(trained(stopped, preprocessor, rows)[1].last, seen[1])


def test_stopping_after_more_epochs_than_there_are_adds_none(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    assert len(rates(preprocessor, rows, epochs=2, stop_after=5)) == 2


# -- objective -------------------------------------------------------------------------------------


def objective(apply_to: ApplyTo, preprocessor: Preprocessor) -> Objective:
    return Objective(TrainConfig(), TimeDecayConfig(apply_to=apply_to), preprocessor)


def weights_of(objective: Objective, rows: Batch) -> torch.Tensor:
    (batch,) = objective.training_rows(rows).parts()
    return batch.loss_weights


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected))


def test_decay_applied_to_the_loss_by_hand(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    batch = make_rows([1, 1, 1], [0, 1, 2], [4.0, 2.0, 1.0], [1.0, 0.5, 0.3])
    loss = objective("loss", preprocessor)
    close(loss.targets(batch), [4.0, 2.0, 1.0])
    close(weights_of(loss, batch), [1 / 0.6, 0.5 / 0.6, 0.3 / 0.6])
    outputs = torch.tensor([6.0, 2.5, -1.0])
    close(loss.stars(outputs, batch), [5.0, 2.5, 0.5])
    close(loss.decayed(outputs, batch), [5.0, 1.25, 0.15])


def test_decay_applied_to_nothing_by_hand(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    batch = make_rows([1, 1, 1], [0, 1, 2], [4.0, 2.0, 1.0], [1.0, 0.5, 0.3])
    none = objective("none", preprocessor)
    close(none.targets(batch), [4.0, 2.0, 1.0])
    close(weights_of(none, batch), [1.0, 1.0, 1.0])
    outputs = torch.tensor([6.0, 2.5, -1.0])
    close(none.stars(outputs, batch), [5.0, 2.5, 0.5])
    close(none.decayed(outputs, batch), [5.0, 1.25, 0.15])


def test_decay_applied_to_the_target_by_hand(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    batch = make_rows([1, 1, 1], [0, 1, 2], [4.0, 2.0, 1.0], [1.0, 0.5, 0.2])
    target = objective("target", preprocessor)
    close(target.targets(batch), [4.0, 1.0, 0.2])
    close(weights_of(target, batch), [1.0, 1.0, 1.0])
    outputs = torch.tensor([3.0, 1.5, 1.2])
    close(target.stars(outputs, batch), [3.0, 3.0, 5.0])  # 1.2 / 0.2 = 6 is clipped
    close(target.decayed(outputs, batch), [3.0, 1.5, 1.2])


@pytest.mark.parametrize("apply_to", ["loss", "target", "none"])
def test_a_perfect_prediction_has_no_error_on_either_scale(
    apply_to: ApplyTo, preprocessor: Preprocessor, rows: Batch
) -> None:
    model = Oracle(rows, times_weight=apply_to == "target")
    scores = evaluate(model, rows, objective(apply_to, preprocessor))
    assert scores.stars.rmse == pytest.approx(0, abs=1e-6)
    assert scores.decayed.rmse == pytest.approx(0, abs=1e-6)
    assert scores.stars.r2 == pytest.approx(1)


class Oracle(torch.nn.Module):
    """Knows every pair's rating."""

    def __init__(self, rows: Batch, *, times_weight: bool) -> None:
        super().__init__()
        answers = rows.ratings * rows.weights if times_weight else rows.ratings
        pairs = zip(rows.users.tolist(), rows.movies.tolist(), strict=True)
        self.answers = dict(zip(pairs, answers.tolist(), strict=True))

    def expected_ratings(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor
    ) -> torch.Tensor:
        pairs = zip(users.tolist(), movies.tolist(), strict=True)
        return torch.tensor([self.answers[pair] for pair in pairs])


def test_predicting_stars_in_target_mode_is_an_error_on_both_scales(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    scores = evaluate(Oracle(rows, times_weight=False), rows, objective("target", preprocessor))
    assert scores.decayed.rmse > 0.5
    assert scores.stars.rmse > 0.5


# -- evaluation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 8192])
def test_evaluation_equals_scikit_learn_for_any_chunk_size(
    chunk: int, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ncf.evaluation.predictions.EVALUATION_CHUNK", chunk)
    model = build(experiment(model={"dropout": 0.5}), world.preprocessor, world.train)
    rows = world.test[:100]
    scores = evaluate(model.train(), rows, objective("loss", world.preprocessor))
    with torch.no_grad():
        stars = model.eval().expected_ratings(rows.users, rows.movies).double().numpy()
    weights, true = rows.weights.double().numpy(), rows.ratings.double().numpy()
    assert stars.min() > world.preprocessor.rating_min  # nothing to clip
    assert scores.stars.count == 100
    assert scores.stars.rmse == pytest.approx(math.sqrt(mean_squared_error(true, stars)), rel=1e-6)
    assert scores.stars.mae == pytest.approx(mean_absolute_error(true, stars), rel=1e-6)
    assert scores.stars.r2 == pytest.approx(r2_score(true, stars), rel=1e-5)
    decayed = r2_score(true * weights, stars * weights)
    assert scores.decayed.r2 == pytest.approx(decayed, rel=1e-5)


# -- one step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("apply_to", ["loss", "target", "none"])
def test_the_training_loss_is_the_weighted_mean_over_all_rows(
    apply_to: ApplyTo, preprocessor: Preprocessor, rows: Batch
) -> None:
    config = experiment(apply_to=apply_to, epochs=1, batch_size=7, **STEADY)
    model = build(config, preprocessor, rows)
    with torch.no_grad():
        outputs = model.network(rows.users, rows.movies).double().numpy()
    ratings, weights = rows.ratings.double().numpy(), rows.weights.double().numpy()
    expected = {
        "loss": mean_squared_error(ratings, outputs, sample_weight=weights),
        "none": mean_squared_error(ratings, outputs),
        "target": mean_squared_error(ratings * weights, outputs),
    }
    result = fit(model, rows, None, objective_of(config, preprocessor))
    assert result.epochs[0].train_loss == pytest.approx(expected[apply_to], rel=1e-5)


@pytest.mark.parametrize(("ridge", "decay"), [(0.0, 0.0), (3.0, 0.0), (0.0, 0.2), (3.0, 0.2)])
def test_steps_equal_autograd_of_the_penalised_loss_and_torchs_adamw(
    ridge: float, decay: float, preprocessor: Preprocessor, rows: Batch
) -> None:
    settings = STEADY | {"embedding_l2": ridge, "weight_decay": decay, "learning_rate": 0.01}
    # Every batch holds all rows, so that their order does not matter.
    config = experiment(
        model={"embedding_std": 0.5}, apply_to="loss", epochs=8, batch_size=7, **settings
    )
    reference = build(config, preprocessor, rows).network
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.01, weight_decay=decay)
    weights = rows.weights / rows.weights.sum()
    for _ in range(8):
        errors = reference(rows.users, rows.movies) - rows.ratings
        users, movies = (
            reference.get_parameter(f"branches.{name}.table.weight") for name in ("user", "movie")
        )
        penalty = ridge * (users.square().sum() + movies.square().sum()) / len(rows)
        optimizer.zero_grad()
        ((weights * errors.square()).sum() + penalty).backward()
        optimizer.step()
    found = trained(config, preprocessor, rows)[1].last
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("batch_size", [3, 7])
def test_a_row_without_weight_has_no_influence(
    batch_size: int, preprocessor: Preprocessor, rows: Batch
) -> None:
    def weights(rating: float, weight: float) -> Weights:
        changed = replace(rows, ratings=rows.ratings.clone(), weights=rows.weights.clone())
        changed.ratings[4], changed.weights[4] = rating, weight
        config = experiment(apply_to="loss", epochs=5, batch_size=batch_size, **STEADY)
        return trained(config, preprocessor, changed)[1].last

    assert_equal_weights(weights(5.0, 1e-30), weights(0.5, 1e-30))
    high, low = weights(5.0, 0.4), weights(0.5, 0.4)
    assert not torch.equal(high["output.bias"], low["output.bias"])


def test_weights_matter_only_in_proportion(preprocessor: Preprocessor, rows: Batch) -> None:
    config = experiment(apply_to="loss", epochs=5, batch_size=3, embedding_l2=4.0, patience=0)
    halved = replace(rows, weights=rows.weights / 2)  # a power of two, so exact
    expected = trained(config, preprocessor, rows)[1].last
    assert_equal_weights(trained(config, preprocessor, halved)[1].last, expected)


@pytest.mark.parametrize("loss", ["mse", "l1", "smooth_l1"])
def test_the_configured_loss_is_minimised(loss: Any, preprocessor: Preprocessor) -> None:
    # A single user and movie with ratings 1, 1, 1, 1, 5: the mean is 1.8, the median 1, and the
    # SmoothL1 optimum has 4 (x - 1) = 1.
    rows = Batch(
        torch.ones(5, dtype=torch.int32),
        torch.zeros(5, dtype=torch.int32),
        torch.tensor([1.0, 1.0, 1.0, 1.0, 5.0]),
        torch.ones(5),
        torch.zeros(5, dtype=torch.int64),
    )
    config = experiment(
        loss=loss, epochs=600, learning_rate=0.02, batch_size=5, patience=0, embedding_l2=0
    )
    model, _ = trained(config, preprocessor, rows)
    with torch.no_grad():
        output = model.eval().expected_ratings(rows.users[:1], rows.movies[:1])
    optimum = {"mse": 1.8, "l1": 1.0, "smooth_l1": 1.25}[loss]
    assert functional.l1_loss(output, torch.tensor([optimum])).item() < 0.02


# -- several workers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "batch_size", "expected"),
    [
        # 2 inputs of 50 -> 1,000 -> 400 -> 1 have 500,400 weights.
        ({"hidden_dims": (1000, 400)}, 999, False),
        ({"hidden_dims": (1000, 400)}, 1000, True),
        ({"history": {"encoders": ("gaussian-process",)}}, 1, True),
    ],
)
def test_data_parallel_training_pays_off_for_large_batches(
    settings: dict[str, Any], batch_size: int, expected: bool
) -> None:
    model = {"inputs": ("user", "movie"), "embedding_dim": 50, **settings}
    assert data_parallel_pays_off(experiment(model=model, batch_size=batch_size)) is expected
