"""Trees on the residuals of a network, and its out-of-fold predictions."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import torch

from ncf.baselines.boosting import BoostingSettings, training_features
from ncf.blending import residual_boosting
from ncf.blending.stacking import StackedRows, fit_stacked
from ncf.config import ExperimentConfig
from ncf.models.targets import Objective
from ncf.training.loop import fit
from ncf.training.out_of_fold import FOLDS, fold_of_rows, in_order, predict_fold
from ncf.training.trainer import build
from tests.ncf.worlds import World

SETTINGS = BoostingSettings(with_times=False, leaves=4, rounds=12, folds=3, learning_rate=0.2)
NETWORK = ExperimentConfig.model_validate(
    {
        "model": {"embedding_dim": 2, "hidden_dims": [4], "history": {"encoders": ["statistics"]}},
        "train": {"epochs": 2, "batch_size": 256, "seed": 3, "keep": "best"},
    }
)


def test_a_fold_is_predicted_by_a_network_that_never_saw_it(world: World) -> None:
    rows, number = world.train[:1200], 2
    fold = np.random.default_rng(3).permutation(len(rows)) % FOLDS
    inside = torch.from_numpy(fold == number)
    found = predict_fold(NETWORK, world.preprocessor, rows, number)

    others = rows[~inside]
    objective = Objective(NETWORK.train, NETWORK.time_decay, world.preprocessor)
    model = build(NETWORK, world.preprocessor, others)
    model.network.load_state_dict(fit(model, others, None, objective).last)
    model.eval()
    asked = rows[inside]
    with torch.inference_mode():
        outputs = model.expected_ratings(asked.users, asked.movies, asked.times)
    np.testing.assert_allclose(found, objective.stars(outputs, asked).numpy(), rtol=1e-5)

    ratings = torch.where(inside, 0.5, rows.ratings)
    changed = predict_fold(NETWORK, world.preprocessor, replace(rows, ratings=ratings), number)
    np.testing.assert_array_equal(changed, found)


def test_folds_part_the_rows_and_are_put_in_their_order() -> None:
    fold = fold_of_rows(23, seed=5)
    assert sorted(np.bincount(fold)) == [4, 4, 5, 5, 5]
    of_folds = [np.flatnonzero(fold == number).astype(float) for number in range(FOLDS)]
    np.testing.assert_array_equal(in_order(of_folds, seed=5), np.arange(23.0))


def test_trees_learn_the_error_of_the_network(world: World) -> None:
    """A network that is always half a star too low is corrected by half a star."""
    rows = world.train[:2000]
    ratings = rows.ratings.double().numpy()
    member = residual_boosting.fit(
        StackedRows(rows, ratings - 0.5), world.preprocessor, replace(SETTINGS, rounds=60)
    )
    asked = world.test[:40]
    found = member.predict_from(torch.full((40,), 3.0), asked)
    np.testing.assert_allclose(found.numpy(), 3.5, atol=0.01)


def test_trees_are_those_of_lightgbm_on_residuals(world: World) -> None:
    rows = world.train[:1500]
    stars = np.random.default_rng(0).uniform(2, 4, len(rows))
    member = residual_boosting.fit(StackedRows(rows, stars), world.preprocessor, SETTINGS)
    table = training_features(rows, world.preprocessor, SETTINGS)
    values = np.column_stack([table.values, stars.astype(np.float32)])
    residuals = rows.ratings.double().numpy() - stars
    expected = lightgbm.train(
        {
            "num_leaves": 4,
            "min_data_in_leaf": SETTINGS.rows_per_leaf,
            "feature_fraction": SETTINGS.column_share,
            "bagging_fraction": SETTINGS.row_share,
            "bagging_freq": 1,
            "lambda_l2": SETTINGS.l2,
            "learning_rate": 0.2,
            "seed": 0,
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
        },
        lightgbm.Dataset(values, residuals),
        12,
    )
    found = member.trees.booster.predict(values)
    np.testing.assert_allclose(found, expected.predict(values), atol=1e-5)


def test_the_corrections_are_sums_over_features(world: World) -> None:
    rows = world.train[:1500]
    stars = np.full(len(rows), 3.0)
    member = residual_boosting.fit(StackedRows(rows, stars), world.preprocessor, SETTINGS)
    network, asked = torch.linspace(1.0, 5.0, 30), world.test[:30]
    terms = member.corrections(network, asked)
    found = member.predict_from(network, asked) - network.double()
    np.testing.assert_allclose(terms.values.sum(axis=1), found.numpy(), atol=1e-5)
    assert terms.names[-2:] == ("prediction of the network", "mean of the trees")


def test_settings_are_chosen_by_the_error_of_what_is_corrected(world: World) -> None:
    """Each number of trees that the search ended with errs no more than half or twice as many."""
    random, spec = np.random.default_rng(1), residual_boosting.RESIDUAL_BOOSTING
    train, validation = (
        StackedRows(rows, np.clip(rows.ratings.double().numpy() - error, 0.5, 5.0))
        for rows, error in (
            (rows, np.sin(rows.movies.numpy()) + random.normal(0, 0.3, len(rows)))
            for rows in (world.train[:3000], world.validation)
        )
    )
    member, settings = fit_stacked(spec, train, validation, world.preprocessor, 2, with_times=False)
    assert not settings.with_times

    def error(stars: np.ndarray) -> float:
        clipped = np.clip(stars, world.preprocessor.rating_min, world.preprocessor.rating_max)
        return float(np.mean((clipped - validation.rows.ratings.double().numpy()) ** 2))

    def of(rounds: int) -> float:
        other = spec.fit(train, world.preprocessor, replace(settings, rounds=rounds))
        return error(
            other.predict_from(torch.from_numpy(validation.network), validation.rows).numpy()
        )

    chosen = error(
        member.predict_from(torch.from_numpy(validation.network), validation.rows).numpy()
    )
    assert chosen < 0.8 * error(validation.network)
    assert chosen <= min(of(max(1, settings.rounds // 4)), of(settings.rounds * 4)) + 1e-3


def test_no_user_is_hidden_from_trees_that_correct_a_network(world: World) -> None:
    unknown = replace(world.validation, users=torch.zeros_like(world.validation.users))
    train, validation = (
        StackedRows(rows, np.full(len(rows), 3.0)) for rows in (world.train[:500], unknown)
    )
    spec = residual_boosting.RESIDUAL_BOOSTING
    _, settings = fit_stacked(spec, train, validation, world.preprocessor, 1, with_times=True)
    assert settings.hidden_user_share == 0
    assert spec.default(True) == BoostingSettings(with_times=True)
