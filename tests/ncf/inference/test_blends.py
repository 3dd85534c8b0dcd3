"""A checkpoint with a blend and with intervals in use, against its parts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ncf
from foundation.checksums import write_checksums
from ncf.baselines import Baseline
from ncf.baselines.bayesian_factorization import BayesianSettings, bayesian_factorization
from ncf.baselines.boosting import BoostingSettings, boosted_trees, features
from ncf.blending import residual_boosting
from ncf.blending.blend import Blend
from ncf.blending.residual_boosting import ResidualBoosting
from ncf.blending.stacking import StackedRows
from ncf.blending.weights import Weights
from ncf.errors import CheckpointError, InputError, UnsupportedError
from ncf.evaluation.ranking import SeenMovies
from ncf.evaluation.uncertainty import Uncertainty
from ncf.inference import checkpoint, top_k
from ncf.inference.checkpoint import Checkpoint
from ncf.inference.recommender import Recommender
from ncf.inference.spread import interval_features
from ncf.inference.stars import member_stars, network_stars, rows_to_predict
from ncf.models.history.ratings import Ratings
from ncf.models.weights import snapshot
from tests.ncf.inference.test_recommender import GAUSSIAN_PROCESS, PLAIN, drawn
from tests.ncf.worlds import World

TODAY = 1_600_000_000


@pytest.fixture(scope="module")
def blended(world: World) -> Checkpoint:
    network = drawn(world, GAUSSIAN_PROCESS)
    few, preprocessor = world.train[:1500], network.preprocessor
    settings = BoostingSettings(with_times=True, leaves=4, rounds=10, folds=3, learning_rate=0.2)
    members = (
        ("boosting-with-times", boosted_trees(few, preprocessor, settings)),
        (
            "bayesian-factorization",
            bayesian_factorization(few, preprocessor, BayesianSettings(2, warm_up=2, draws=4)),
        ),
    )
    stars = network_stars(network, few).double().numpy()
    correction = residual_boosting.fit(StackedRows(few, stars), preprocessor, settings)
    ends = preprocessor.rating_min, preprocessor.rating_max
    weights = Weights(3.4, (0.4, 0.3, 0.15, 0.2))
    return replace(
        network, blend=Blend(weights, (*members, ("residual-boosting", correction)), *ends)
    )


@pytest.fixture(scope="module")
def with_intervals(world: World, blended: Checkpoint) -> Checkpoint:
    of_members = member_stars(blended, world.validation)
    features = interval_features(blended, world.validation, of_members)
    assert blended.blend
    errors = world.validation.ratings - blended.blend.combine(of_members)
    return replace(blended, uncertainty=Uncertainty.fit(features, errors.double().numpy()))


def by_hand(model: Checkpoint, users: list[int], movies: list[int], times: int) -> np.ndarray:
    """``[B]`` unclipped predictions of the blend for indices."""
    rows = rows_to_predict(model.preprocessor, np.array(users), np.array(movies), np.array(times))
    low, high = model.preprocessor.rating_min, model.preprocessor.rating_max
    assert model.blend
    *alone, (_, correction) = model.blend.members
    assert isinstance(correction, ResidualBoosting)
    network = network_stars(model, rows)
    trees = correction.trees
    table = features(trees.history, rows, with_times=True)
    column = network.double().numpy().astype(np.float32)
    inputs = np.column_stack([table.values, column])
    members = [
        network,
        *(member.predict(rows) for _, member in alone if isinstance(member, Baseline)),
        network + torch.from_numpy(trees.booster.predict(inputs)),
    ]
    stars = [np.clip(each.numpy(), low, high) for each in members]
    weighted = zip(model.blend.weights.of_members, stars, strict=True)
    return 3.4 + sum(weight * (each - 3.4) for weight, each in weighted)


def test_predictions_are_those_of_the_blend(blended: Checkpoint) -> None:
    preprocessor = blended.preprocessor
    found = Recommender(blended).predict(
        preprocessor.user_ids[:3], preprocessor.movies.ids[[4, 5, 6]], [TODAY] * 3
    )
    expected = by_hand(blended, [1, 2, 3], [4, 5, 6], TODAY)
    ends = preprocessor.rating_min, preprocessor.rating_max
    np.testing.assert_allclose(found, np.clip(expected, *ends), rtol=1e-5)
    alone = Recommender(replace(blended, blend=None)).predict(
        preprocessor.user_ids[:3], preprocessor.movies.ids[[4, 5, 6]], [TODAY] * 3
    )
    assert np.abs(found - alone).max() > 0.01


@pytest.mark.parametrize("candidates", [5, 200])
def test_a_blend_orders_the_best_of_its_network(
    blended: Checkpoint, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_k, "_BLENDED", candidates)
    num_movies = len(blended.preprocessor.movies)
    users = np.array([1, 2])
    seen = SeenMovies.of(np.array([1]), np.array([3]), blended.preprocessor.num_users)
    found = top_k.top_movies(blended, users, seen, 4, TODAY)
    network = top_k.top_movies(replace(blended, blend=None), users, seen, num_movies, TODAY)
    for row, user in enumerate(users.tolist()):
        first = network.movies[row][network.movies[row] >= 0][:candidates]
        stars = by_hand(blended, [user] * len(first), first.tolist(), TODAY)
        best = first[np.argsort(-stars)][:4]
        np.testing.assert_array_equal(found.movies[row], best)
        expected = np.sort(stars)[::-1][:4]
        ends = blended.preprocessor.rating_min, blended.preprocessor.rating_max
        np.testing.assert_allclose(found.stars[row], np.clip(expected, *ends), rtol=1e-5)
        assert 3 not in found.movies[0]


def test_explanations_add_up_to_the_blend(blended: Checkpoint) -> None:
    preprocessor = blended.preprocessor
    recommender = Recommender(blended, today=TODAY)
    movies = [2, 7, 9]
    found = recommender.explain(int(preprocessor.user_ids[0]), preprocessor.movies.ids[movies])
    expected = by_hand(blended, [1] * 3, movies, TODAY)
    for each, stars in zip(found, expected, strict=True):
        total = sum(each.base.values()) + each.added.sum() + sum(each.features.values())
        assert each.prediction == pytest.approx(stars, abs=1e-4)
        assert total == pytest.approx(each.prediction, abs=1e-4)
        assert "user mean" in each.features
        assert "Bayesian matrix factorisation" in each.base
        assert "prediction of the network" in each.features
    assert any(abs(term) > 0.01 for term in found[0].features.values())


def test_nothing_is_explained_if_no_movie_is_asked_for(blended: Checkpoint) -> None:
    assert Recommender(blended).explain(int(blended.preprocessor.user_ids[0]), []) == []


def test_a_new_user_is_folded_in_with_all_members(blended: Checkpoint) -> None:
    ids = blended.preprocessor.movies.ids
    recommender = Recommender(blended, today=TODAY)
    own = recommender.fold_in(ids[:5], [5.0, 4.5, 0.5, 1.0, 3.0], [TODAY - 60] * 5)
    assert own.rating_model
    assert own.rating_model.blend
    found = own.predict(0, ids[10:14])
    expected = by_hand(own.rating_model, [0] * 4, [10, 11, 12, 13], TODAY)
    ends = blended.preprocessor.rating_min, blended.preprocessor.rating_max
    np.testing.assert_allclose(found, np.clip(expected, *ends), rtol=1e-5)
    assert np.abs(found - recommender.predict(-1, ids[10:14])).max() > 0.01


def saved(model: Checkpoint, folder: Path) -> Path:
    network = model.model.network
    checkpoint.save(
        folder, snapshot(network), model.experiment, model.preprocessor, {}, model.model.history
    )
    checkpoint.extend(folder, model.blend, model.uncertainty)
    return folder


def test_a_loaded_checkpoint_has_its_blend_and_intervals(
    with_intervals: Checkpoint, tmp_path: Path
) -> None:
    folder = saved(with_intervals, tmp_path / "checkpoint")
    users, movies = with_intervals.preprocessor.user_ids[:9], with_intervals.preprocessor.movies.ids
    loaded, made = ncf.load(folder), Recommender(with_intervals)
    for level in (0.5, 0.9):
        found = loaded.predict_intervals(users, movies[:9], level=level)
        expected = made.predict_intervals(users, movies[:9], level=level)
        for name in ("stars", "sd", "low", "high"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)
    np.testing.assert_array_equal(found.stars, loaded.predict(users, movies[:9]))
    assert ((found.low < found.stars) & (found.stars < found.high)).all()
    with pytest.raises(InputError, match=r"level: found 0.42, expected one of 0.5, 0.8, 0.9"):
        loaded.predict_intervals(users, movies[:9], level=0.42)
    (folder / checkpoint.UNCERTAINTY).write_text("{}")
    with pytest.raises(CheckpointError, match=r"not as written.* uncertainty.json"):
        ncf.load(folder)


def test_a_checkpoint_that_lost_its_blend_is_refused(
    with_intervals: Checkpoint, tmp_path: Path
) -> None:
    folder = saved(with_intervals, tmp_path / "checkpoint")
    other = saved(with_intervals, tmp_path / "other")
    (other / checkpoint.BLEND / "blend.json").write_text("{}")
    write_checksums(other / checkpoint.BLEND)
    with pytest.raises(CheckpointError, match="blend/ is that of another checkpoint"):
        ncf.load(other)
    shutil.rmtree(folder / checkpoint.BLEND)
    with pytest.raises(CheckpointError, match=r"No such file .*blend/SHA256SUMS"):
        ncf.load(folder)


def test_without_validation_rows_there_are_no_intervals(world: World) -> None:
    plain = Recommender(drawn(world, PLAIN))
    with pytest.raises(UnsupportedError, match="no intervals: they are learned from validation"):
        plain.predict_intervals(1, 1)


def test_features_of_the_size_of_errors(world: World, blended: Checkpoint) -> None:
    rows = world.test[:7]
    of_members = member_stars(blended, rows)
    found = interval_features(blended, rows, of_members)
    mean = of_members.mean(0).numpy() - blended.preprocessor.rating_mean
    np.testing.assert_allclose(found["prediction"], mean, rtol=1e-5)
    np.testing.assert_allclose(found["square of the prediction"], mean**2, rtol=1e-5)
    spread = of_members.numpy().std(axis=0)
    np.testing.assert_allclose(found["disagreement of members"], np.log(spread + 0.05), rtol=1e-5)
    counts = blended.preprocessor.movies.train_counts[rows.movies.numpy()]
    np.testing.assert_allclose(found["movie's ratings"], np.log1p(counts))
    for i in range(len(rows)):
        asked = Ratings.of(rows.movies[i : i + 1].long(), rows.times[i : i + 1])
        with torch.inference_mode():
            deviation = float(blended.model.deviations(int(rows.users[i]), asked))
        assert found["posterior deviation"][i] == pytest.approx(np.log(deviation + 1e-3), abs=1e-4)
    plain = drawn(world, PLAIN)
    alone = interval_features(plain, rows, member_stars(plain, rows))
    assert list(alone) == ["prediction", "square of the prediction", "movie's ratings"]
