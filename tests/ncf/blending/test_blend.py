"""A blend in its folder, and for new users."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ncf.baselines.bayesian_factorization import BayesianSettings, bayesian_factorization
from ncf.baselines.boosting import BoostingSettings, boosted_trees
from ncf.blending.blend import FILE, Blend, stars_of
from ncf.blending.weights import Weights
from ncf.errors import CheckpointError
from ncf.registry import BASELINES
from tests.ncf.worlds import World, rows_of

TREES = "boosting-with-times"
FACTORS = "bayesian-factorization"


@pytest.fixture(scope="module")
def blend(world: World) -> Blend:
    few = world.train[:1500]
    settings = BoostingSettings(with_times=True, leaves=4, rounds=8, folds=3, learning_rate=0.2)
    trees = boosted_trees(few, world.preprocessor, settings)
    draws = BayesianSettings(rank=2, warm_up=2, draws=4)
    factors = bayesian_factorization(few, world.preprocessor, draws)
    ends = world.preprocessor.rating_min, world.preprocessor.rating_max
    return Blend(Weights(3.4, (0.5, 0.3, 0.4)), ((TREES, trees), (FACTORS, factors)), *ends)


def test_members_are_clipped_before_they_are_combined(world: World, blend: Blend) -> None:
    rows, network = world.test[:50], torch.linspace(-2.0, 8.0, 50)
    each = blend.each(network, rows)
    low, high = blend.lowest, blend.highest
    trees, factors = (stars_of(member, network, rows).numpy() for _, member in blend.members)
    expected = [np.clip(stars, low, high) for stars in (network.numpy(), trees, factors)]
    np.testing.assert_allclose(each.numpy(), expected, rtol=1e-6)
    combined = 3.4 + sum(
        weight * (stars - 3.4) for weight, stars in zip((0.5, 0.3, 0.4), expected, strict=True)
    )
    np.testing.assert_allclose(blend.combine(each).numpy(), combined, rtol=1e-6)


def test_what_is_saved_predicts_the_same(world: World, blend: Blend, tmp_path: Path) -> None:
    network = torch.full((len(world.test),), 3.0)
    blend.save(tmp_path / "blend")
    loaded = Blend.load(tmp_path / "blend", world.preprocessor)
    assert loaded.weights == blend.weights
    np.testing.assert_array_equal(
        loaded.each(network, world.test).numpy(), blend.each(network, world.test).numpy()
    )
    assert [path.name for path in tmp_path.iterdir()] == ["blend"]


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_damaged_and_odd_folders_are_refused(
    world: World, blend: Blend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "blend"
    blend.save(folder)
    change(folder / FILE, format_version=9)
    with pytest.raises(CheckpointError, match="has format version 9, this program reads"):
        Blend.load(folder, world.preprocessor)
    blend.save(folder)
    change(folder / FILE, weights=[9.0, 9.0, 9.0])
    with pytest.raises(ValueError, match=r"not as written.* blend.json"):
        Blend.load(folder, world.preprocessor)
    blend.save(folder)
    trees = folder / TREES / "trees.txt"
    trees.write_text(trees.read_text().replace("leaf_value=", "leaf_value=9"))
    with pytest.raises(ValueError, match=r"not as written.* trees.txt"):
        Blend.load(folder, world.preprocessor)
    monkeypatch.setattr("ncf.blending.blend.verify_checksums", lambda _folder: None)
    trees.write_text("no trees")
    with pytest.raises(ValueError, match=r"trees.txt holds no trees"):
        Blend.load(folder, world.preprocessor)
    blend.save(folder)
    change(folder / FILE, weights=[1.0])
    with pytest.raises(ValueError, match="1 weights for the network and 2 members"):
        Blend.load(folder, world.preprocessor)
    change(folder / FILE, members=["../../secret"])
    with pytest.raises(ValueError, match=r"names the member '../../secret', which no blend can"):
        Blend.load(folder, world.preprocessor)


def test_trees_without_lightgbm_say_what_to_install(
    world: World, blend: Blend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blend.save(tmp_path / "blend")
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "lightgbm":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CheckpointError, match="boosted trees, which need LightGBM: pip install"):
        Blend.load(tmp_path / "blend", world.preprocessor)


def test_a_new_user_is_described_by_the_given_ratings_alone(world: World, blend: Blend) -> None:
    asked = rows_of([0, 0, 0], [1, 2, 3], [0.0] * 3, times=[10**9] * 3)
    network = torch.full((3,), 3.0)
    likes = rows_of([0] * 6, [4, 5, 6, 7, 8, 9], [5.0] * 6, times=[10**9] * 6)
    dislikes = replace(likes, ratings=torch.full((6,), 0.5))
    high, low = (blend.fold_in(rated).each(network, asked) for rated in (likes, dislikes))
    assert (high[1:] > low[1:]).all()
    # The blend itself is as it was, and the user index has no meaning.
    other = replace(asked, users=torch.full_like(asked.users, 7))
    np.testing.assert_array_equal(blend.fold_in(likes).each(network, other).numpy(), high.numpy())


def test_every_baseline_with_a_loader_can_be_saved() -> None:
    assert {name for name, entry in BASELINES.items() if entry.load} == {
        "boosting",
        TREES,
        FACTORS,
    }
