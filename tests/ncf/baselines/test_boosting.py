"""LightGBM baselines, and all baselines together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ncf import baselines
from ncf.baselines.boosting import (
    BoostedTrees,
    BoostingSettings,
    best_boosting,
    boosted_trees,
    training_features,
)
from ncf.data.batches import Batch, concatenated

NAMES = [
    "global mean",
    "damped bias",
    "item kNN",
    "matrix factorisation",
    "Bayesian matrix factorisation",
    "LightGBM",
    "LightGBM, with rating times",
]


@pytest.fixture(scope="module")
def moody(world: Any) -> tuple[Batch, Batch, Batch]:
    """Training, validation and test rows where each sitting of a user has a mood of its own."""
    random = np.random.default_rng(11)
    rows = concatenated(concatenated(world.train, world.validation), world.test)
    sitting = random.integers(0, 5, len(rows))
    temporal = random.choice([-0.8, 0.8], (121, 5))[rows.users.numpy(), sitting]
    times = 10**9 + sitting * 50 * 86400 + random.integers(0, 600, len(rows))
    rows = replace(
        rows,
        ratings=rows.ratings + torch.from_numpy(temporal).float(),
        times=torch.from_numpy(times),
    )
    return rows[:4500], rows[4500:5100], rows[5100:]


def test_times_reveal_the_level_of_a_session(world: Any, moody: tuple[Batch, Batch, Batch]) -> None:
    train, _, test = moody
    lowest, highest = float(train.ratings.min()), float(train.ratings.max())
    preprocessor = replace(world.preprocessor, rating_min=lowest, rating_max=highest)

    def error(with_times: bool) -> float:
        settings = BoostingSettings(with_times, rounds=150, learning_rate=0.1)
        return boosted_trees(train, preprocessor, settings).score(test, preprocessor).stars.rmse

    without, with_times = error(False), error(True)
    assert without > 0.8  # the mood is 0.8 to either side
    assert with_times < 0.6


def test_the_number_of_trees_is_where_the_validation_error_is_least(world: Any) -> None:
    train, validation = world.train[:1500], world.validation
    chosen = best_boosting(train, validation, world.preprocessor, 4, with_times=False)
    model = boosted_trees(train, world.preprocessor, chosen)
    table = training_features(train, world.preprocessor, chosen)
    assert model.booster.num_trees() == chosen.rounds
    assert model.booster.num_feature() == len(table.names)

    def error(rounds: int) -> float:
        changed = boosted_trees(train, world.preprocessor, replace(chosen, rounds=rounds))
        stars = changed.predict(validation)
        return float(((stars - validation.ratings) ** 2).mean())

    best = error(chosen.rounds)
    assert best <= min(error(rounds) for rounds in (5, chosen.rounds - 1, chosen.rounds + 20))
    assert best_boosting(train, None, world.preprocessor, with_times=True) == BoostingSettings(True)


def test_more_trials_find_a_lower_validation_error(world: Any) -> None:
    train, validation = world.train[:1500], world.validation
    one, more = (
        best_boosting(train, validation, world.preprocessor, num_trials, with_times=False)
        for num_trials in (1, 8)
    )
    assert replace(one, rounds=500) == BoostingSettings(with_times=False)
    errors = [
        boosted_trees(train, world.preprocessor, chosen)
        .score(validation, world.preprocessor)
        .stars.rmse
        for chosen in (one, more)
    ]
    assert errors[1] < errors[0]


def test_users_are_hidden_if_validation_users_are_unknown(world: Any) -> None:
    train, validation = world.train[:800], world.validation[:100]
    assert not best_boosting(
        train, validation, world.preprocessor, 2, with_times=False
    ).hidden_user_share
    users = validation.users.clone()
    users[:10] = 0
    strange = replace(validation, users=users)
    chosen = best_boosting(train, strange, world.preprocessor, 2, with_times=False)
    assert chosen.hidden_user_share > 0
    assert "without their user" in boosted_trees(train, world.preprocessor, chosen).detail


def test_the_same_settings_grow_the_same_trees(world: Any) -> None:
    train, settings = world.train[:800], BoostingSettings(True, rounds=20)
    first, second = (boosted_trees(train, world.preprocessor, settings) for _ in range(2))
    assert torch.equal(first.predict(world.test), second.predict(world.test))
    other = boosted_trees(train, world.preprocessor, replace(settings, seed=1))
    assert not torch.equal(first.predict(world.test), other.predict(world.test))
    assert len(first.predict(world.test[:0])) == 0


def test_all_baselines_see_no_test_row_and_beat_the_mean(world: Any) -> None:
    notes: list[str] = []
    train, validation = world.train[:2000], world.validation[:300]
    found = list(
        baselines.fit_baselines(
            train, validation, world.preprocessor, note=notes.append, num_trials=4
        )
    )
    assert [each.baseline.name for each in found] == NAMES
    assert notes == []
    errors = [each.baseline.score(world.test, world.preprocessor).stars.rmse for each in found]
    assert errors[0] == max(errors)
    assert max(errors[3:]) < 0.8 * errors[1]  # what sees a taste is better than what does not
    for each in found:
        both = concatenated(train, validation)
        refit = each.refit(both, world.preprocessor)[0]
        again = each.spec.fit(both, world.preprocessor, each.settings)
        assert torch.equal(refit.predict(world.test), again.predict(world.test))
        assert not torch.equal(refit.predict(world.test), each.baseline.predict(world.test))
        assert refit.detail == each.baseline.detail
    boosted = found[-1].baseline
    assert isinstance(boosted, BoostedTrees)
    assert len(boosted.history.rows) == len(train)


def test_concatenated_rows_are_those_of_both(world: Any, assert_same: Any) -> None:
    both = concatenated(world.train[:3], world.train[3:5])
    for name in ("users", "movies", "ratings", "weights", "times"):
        assert torch.equal(getattr(both, name), getattr(world.train[:5], name))
    assert concatenated(both, None) is both


def test_without_lightgbm_its_baselines_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ncf.baselines.is_installed", lambda package: package != "lightgbm")
    notes: list[str] = []
    assert [spec.name for spec in baselines.baseline_specs(1000, note=notes.append)] == NAMES[:5]
    assert len(notes) == 1
    assert "boosting, boosting-with-times; lightgbm is not installed: pip install" in notes[0]


def test_beyond_a_size_only_the_biases_are_fitted() -> None:
    notes: list[str] = []
    found = baselines.baseline_specs(baselines.LARGEST + 1, note=notes.append)
    assert [spec.name for spec in found] == NAMES[:2]
    assert len(notes) == 1
    assert [r.name for r in baselines.baseline_specs(baselines.LARGEST, note=notes.append)] == NAMES
    assert len(notes) == 1


def test_only_the_named_baselines_are_fitted_and_the_mean(world: Any) -> None:
    found = baselines.fit_baselines(
        world.train[:600], None, world.preprocessor, ["matrix-factorization"]
    )
    assert [each.baseline.name for each in found] == [NAMES[0], NAMES[3]]
