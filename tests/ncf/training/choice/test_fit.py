"""Fitting members: what is chosen on validation users, and that the choice can be repeated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ncf.choice_config import ChoiceConfig
from ncf.data.interactions import Interactions
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.ease import EasePath
from ncf.models.choice.experts import ProductOfExperts
from ncf.models.choice.network import NetworkChoiceModel
from ncf.training.choice import fit as fitting
from ncf.training.choice.fit import ModelFit, Step, num_steps
from ncf.training.choice.loop import ChoiceTraining
from ncf.training.choice.state import load_state, save_state
from tests.ncf.inference.test_choices import interactions

CONFIG = ChoiceConfig.model_validate(
    {
        "ease": {"ridges": (300.0, 20.0, 5.0)},
        "network": {"dim": 4, "epochs": 4, "evaluate_every": 2},
        "experts": {"powers": (0.5, 0.25, 1.0)},
    }
)


@pytest.fixture
def train(world: Any) -> Interactions:
    return interactions(world.train[:1500])


class Preferring:
    """An evaluation that likes the models it is called with at the given calls, and of several the
    one with the given number."""

    def __init__(self, best: set[int], chosen: int = 0) -> None:
        self._best = best
        self._chosen = chosen
        self._calls = 0

    def value(self, model: ChoiceModel) -> float:
        self._calls += 1
        return 1.0 if self._calls in self._best else 0.1

    def choose(self, models: Iterable[ChoiceModel], tolerance: float) -> int:
        assert tolerance == 0.5
        assert len(list(models)) == 9  # three ridges with three powers each
        return self._chosen


def test_ridge_epoch_and_power_are_the_best_on_validation_users(
    world: Any, train: Interactions
) -> None:
    # Three ridges, epochs 2 and 4; pairs (300, 0.5), (300, 0.25), (300, 1), (20, 0.5), ...
    fit = ModelFit(CONFIG, train, world.preprocessor, Preferring({2, 4}, chosen=8))
    steps = list(fit)
    assert [(step.number, step.validation) for step in steps] == [
        (1, 0.1),
        (2, 1.0),
        (3, 0.1),
        (5, 1.0),
        (7, 0.1),
    ]
    assert steps[-1].number == num_steps(CONFIG)
    assert [step.train_loss is None for step in steps] == [True, True, True, False, False]
    assert fit.chosen.ease.ridges == (20.0,)
    assert fit.chosen.network.stop_after == 2
    assert (fit.chosen.experts.ridges, fit.chosen.experts.powers) == ((5.0,), (1.0,))
    assert fit.best_step == 5
    experts = fit.models["experts"]
    assert isinstance(experts, ProductOfExperts)
    assert (experts.network, experts.power) == (fit.models["network"], 1.0)
    of_ridge = EasePath(train, world.preprocessor, CONFIG.ease).at(5.0)
    torch.testing.assert_close(experts.ease.scores(train), of_ridge.scores(train))


def test_what_was_chosen_gives_the_same_models_without_validation_users(
    world: Any, train: Interactions
) -> None:
    first = ModelFit(CONFIG, train, world.preprocessor, Preferring({2, 4}, chosen=4))
    list(first)
    second = ModelFit(first.chosen, train, world.preprocessor, None)
    steps = list(second)
    assert [step.number for step in steps] == [1, 3]
    assert num_steps(first.chosen) == 3
    assert second.chosen == first.chosen
    for member in ("ease", "network", "experts"):
        expected = first.models[member].scores(train)
        found = second.models[member].scores(train)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_without_validation_users_the_first_ridge_last_epoch_and_first_power_are_used(
    world: Any, train: Interactions
) -> None:
    fit = ModelFit(CONFIG, train, world.preprocessor, None)
    assert [step.number for step in fit] == [1, 5]
    assert fit.chosen.ease.ridges == (300.0,)
    assert fit.chosen.network.stop_after == 4
    assert fit.chosen.experts.powers == (0.5,)


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_an_interrupted_fit_makes_the_same_steps_and_models(
    world: Any, train: Interactions, tmp_path: Path, after: int
) -> None:
    def save(training: ChoiceTraining) -> None:
        save_state(training.state(), tmp_path / str(len(training.result.epochs)))

    def told(fit: ModelFit) -> list[tuple[Step, int]]:
        return [(replace(step, seconds=0.0), fit.best_step) for step in fit]

    whole = ModelFit(
        CONFIG, train, world.preprocessor, Preferring({2, 4}, chosen=4), after_epoch=save
    )
    expected = told(whole)
    # Of its evaluations only those of the ridges and of the epochs that are left are made.
    made = 3 + after // 2
    resumed = ModelFit(
        CONFIG,
        train,
        world.preprocessor,
        Preferring({2} | ({4} if made < 4 else set()), chosen=4),
        resume=load_state(tmp_path / str(after)),
    )

    assert told(resumed) == expected
    assert resumed.chosen == whole.chosen
    assert resumed.best_step == whole.best_step
    for member, model in whole.models.items():
        assert torch.equal(resumed.models[member].scores(train), model.scores(train)), member


@pytest.mark.parametrize(("member", "steps"), [("ease", 3), ("network", 4)])
def test_a_member_alone_is_fitted_alone(
    member: Any, steps: int, world: Any, train: Interactions
) -> None:
    config = CONFIG.model_copy(update={"member": member})
    fit = ModelFit(config, train, world.preprocessor, Preferring({1}))
    assert [step.number for step in fit][-1] == steps == num_steps(config)
    assert set(fit.models) == {member}


def test_powers_are_tried_on_scores_that_are_computed_once(
    world: Any, train: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    compute = NetworkChoiceModel.scores

    def counted(self: NetworkChoiceModel, known: Interactions) -> torch.Tensor:
        calls.append(len(known))
        return compute(self, known)

    monkeypatch.setattr(NetworkChoiceModel, "scores", counted)

    class InBlocks(Preferring):
        def choose(self, models: Iterable[ChoiceModel], tolerance: float) -> int:
            for model in models:
                for start in (0, 50, 100):
                    model.scores(train.of_users(start, start + 50))
            return 0

    for kept, expected in ((10**9, 3), (0, 27)):
        monkeypatch.setattr(fitting, "_KEPT_CELLS", kept)
        list(ModelFit(CONFIG, train, world.preprocessor, InBlocks(set())))
        assert len(calls) == expected
        calls.clear()
