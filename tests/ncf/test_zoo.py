"""What every member of the model family must do, whatever it is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ncf import checkpoint, grid
from ncf.batches import Batch
from ncf.config import ExperimentConfig, HistoryConfig, ModelConfig, TimeDecayConfig, TrainConfig
from ncf.training import Objective, build, evaluate, fit

ALL_INPUTS = ("user", "movie", "genres", "decade", "numeric", "time")
SMALL = {"embedding_dim": 4, "hidden_dims": (16,), "dropout": 0.0}
HISTORY = {"vector_dim": 4, "linear_dim": 2, "radial_dim": 2, "chunk": 16}
ZOO: dict[str, dict[str, Any]] = {
    "five inputs": {},
    "time": {"inputs": ALL_INPUTS},
    "biases": {"biases": ("user", "movie")},
    "factors": {"gmf_dim": 4},
    "everything that comes apart": {"biases": ("user", "movie"), "gmf_dim": 4},
    "batch normalisation": {"normalization": "batch"},
    "layer normalisation": {"normalization": "layer"},
    "field attention": {"fusion": "attention"},
    "field transformer": {"fusion": "transformer"},
    "ordinal, by likelihood": {"head": "ordinal", "biases": ("user", "movie")},
    "ordinal, by squared error": {"head": "ordinal", "biases": ("user", "movie")},
    **{
        name: {"biases": ("user", "movie"), "history": HistoryConfig(encoders=(name,), **HISTORY)}
        for name in ("statistics", "implicit", "explicit", "transformer", "closed-form")
    },
    "several encoders": {
        "inputs": ("genres", "time"),
        "biases": ("movie",),
        "history": HistoryConfig(encoders=("statistics", "explicit"), use_times=False, **HISTORY),
    },
    "closed form and implicit": {
        "inputs": ("genres",),
        "biases": ("movie",),
        "history": HistoryConfig(encoders=("implicit", "closed-form"), **HISTORY),
    },
    "closed form that forecasts": {
        "inputs": ("genres",),
        "biases": ("movie",),
        "history": HistoryConfig(encoders=("closed-form",), forecasts=True, **HISTORY),
    },
    "closed form without times": {
        "inputs": ("genres",),
        "biases": ("movie",),
        "history": HistoryConfig(encoders=("closed-form",), use_times=False, **HISTORY),
    },
}


def experiment(name: str, **train: Any) -> ExperimentConfig:
    settings: dict[str, Any] = {"learning_rate": 0.02, "embedding_l2": 1.0, "bias_l2": 1.0}
    settings["history_l2"] = 1.0
    if "likelihood" in name:
        settings["loss"] = "nll"
    return ExperimentConfig(
        model=ModelConfig(**{**SMALL, **ZOO[name]}),
        train=TrainConfig(**{**settings, "batch_size": 256, "patience": 0, **train}),
        time_decay=TimeDecayConfig(apply_to="none"),
    )


def trained(name: str, world: Any, rows: Batch, **train: Any) -> tuple[Any, Objective]:
    config = experiment(name, **train)
    objective = Objective(config.train, config.time_decay, world.fitted)
    model = build(config, world.fitted, rows)
    fit(model, rows, None, objective)
    return model.eval(), objective


def predict(model: Any, rows: Batch) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.point(model(rows.users, rows.movies, rows.times))
        return result


@pytest.mark.parametrize("name", ZOO)
def test_a_row_is_predicted_alike_alone_and_among_others(name: str, world: Any) -> None:
    model, _ = trained(name, world, world.train[:600], epochs=1)
    rows = world.test[:40]
    together = predict(model, rows)
    assert together.shape == (40,)
    assert together.std() > 0
    alone = torch.cat([predict(model, rows[row : row + 1]) for row in range(40)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)
    assert predict(model, rows[:0]).shape == (0,)


@pytest.mark.parametrize("name", ZOO)
def test_all_pairs_at_once_are_the_pairs_one_by_one(
    name: str, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "_TILE", 25)
    model, _ = trained(name, world, world.train[:600], epochs=1)
    users, today = torch.tensor([5, 0, 17]), int(world.train.times.max())
    with torch.no_grad():
        found = grid.grid(model, 60, today).scores(users)
        expected = torch.tensor(
            [
                [
                    model.point(model(user[None], torch.tensor([movie]), torch.tensor([today])))
                    for movie in range(60)
                ]
                for user in users
            ]
        )
    assert found.std(dim=1).min() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ZOO)
def test_unknown_users_and_movies_get_a_prediction(name: str, world: Any) -> None:
    model, _ = trained(name, world, world.train[:600], epochs=1)
    rows = world.test[:5]
    unknown = Batch(torch.zeros_like(rows.users), *list(vars(rows).values())[1:])
    assert predict(model, unknown).isfinite().all()


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_learns(name: str, world: Any) -> None:
    rows = world.train[:600]
    before = build(experiment(name), world.fitted, rows)
    model, _ = trained(name, world, rows, epochs=2)
    start = dict(before.named_parameters())
    idle = [n for n, p in model.named_parameters() if p.numel() and torch.equal(p, start[n])]
    assert not idle


@pytest.mark.parametrize("name", ZOO)
def test_saved_and_loaded_it_is_the_same(name: str, world: Any, tmp_path: Path) -> None:
    config = experiment(name, epochs=1)
    model, _ = trained(name, world, world.train[:600], epochs=1)
    weights = model.state_dict()
    checkpoint.save(tmp_path / "model", weights, config, world.fitted, {}, model.history)
    loaded = checkpoint.load(tmp_path / "model")
    assert torch.equal(predict(loaded.model, world.test), predict(model, world.test))


# The others have no parameters of their own for each user.
@pytest.mark.parametrize("name", [n for n in ZOO if "user" in ZOO[n].get("inputs", ALL_INPUTS)])
def test_it_can_learn_a_few_rows_by_heart(name: str, world: Any) -> None:
    config = experiment(
        name, epochs=100, batch_size=64, learning_rate=0.05,
        embedding_l2=0.0, bias_l2=0.0, history_l2=0.0,
    )  # fmt: skip
    rows = world.train[:64]
    objective = Objective(config.train, config.time_decay, world.fitted)
    result = fit(build(config, world.fitted, rows), rows, None, objective)
    assert result.epochs[0].train_loss > 0.5
    assert result.epochs[-1].train_loss < 0.05


@pytest.mark.parametrize("name", ZOO)
def test_it_comes_near_the_noise_of_a_known_world(name: str, world: Any) -> None:
    model, objective = trained(name, world, world.train, epochs=12)
    rmse = evaluate(model, world.test, objective).stars.rmse
    # The noise is 0.3, and no prediction can do better but by chance of these 900 rows.
    assert 0.29 < rmse < 0.35


@pytest.mark.parametrize("name", ["time", "statistics", "transformer", "closed-form"])
def test_an_oracle_in_the_held_out_rows_is_not_learned(name: str, world: Any) -> None:
    """Times that give the rating away, in the validation and test rows alone."""

    def telling(rows: Batch) -> Batch:
        return replace(rows, times=(rows.ratings * 10_000_000).long())

    config = experiment(name, epochs=6)
    objective = Objective(config.train, config.time_decay, world.fitted)
    model = build(config, world.fitted, world.train)
    result = fit(model, world.train, telling(world.validation), objective)
    honest = build(config, world.fitted, world.train)
    without = fit(honest, world.train, world.validation, objective)
    for key, weights in without.last.items():
        assert torch.equal(result.last[key], weights), key
    model.load_state_dict(result.best)
    error = evaluate(model, telling(world.test), objective).stars.rmse
    assert error > 0.29  # the noise, which knowledge of the rating would undercut
