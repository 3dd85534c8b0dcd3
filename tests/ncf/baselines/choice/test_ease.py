"""EASE of ratings alone against the code that was published with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ncf.baselines.choice.base import ChoiceBaselineSpec
from ncf.baselines.choice.ease import EASE, EASE_WITH_VALUES, RIDGES, EaseSettings
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Preprocessor
from tests.ncf.baselines.choice.lists import NUM_MOVIES, dense, interactions_of, strangers, tastes

Floats = npt.NDArray[np.float64]


def published(train: Floats, known: Floats, ridge: float) -> Floats:
    """Steck, 2019, Algorithm 1."""
    gram = train.T @ train
    diagonal = np.diag_indices(gram.shape[0])
    gram[diagonal] += ridge
    inverse = np.linalg.inv(gram)
    weights = inverse / (-np.diag(inverse))
    weights[diagonal] = 0
    return known @ weights


@pytest.mark.parametrize("num_users", [60, 11])  # more and fewer than the 30 movies
@pytest.mark.parametrize("ridge", [2.0, 220.0])
def test_scores_are_those_of_the_published_code(
    num_users: int, ridge: float, preprocessor: Preprocessor
) -> None:
    train, held_out = tastes(num_users)
    model = EASE.fit(train, preprocessor, EaseSettings(ridge))
    for known in (train, held_out, strangers(held_out)):
        expected = published(dense(train), dense(known), ridge)
        np.testing.assert_allclose(model.scores(known), expected, atol=2e-5)


def test_values_of_ratings_take_the_place_of_ones(preprocessor: Preprocessor) -> None:
    lists = {1: [0, 1, 2], 2: [0, 2], 3: [1, 3]}
    stars = {(1, 0): 5.0, (1, 1): 3.0, (1, 2): 1.0, (2, 0): 5.0, (2, 2): 4.0}
    stars |= {(3, 1): 2.0, (3, 3): 4.0}
    train = interactions_of(lists, NUM_MOVIES, stars)
    mean, values = np.mean(list(stars.values())), np.zeros((3, NUM_MOVIES))
    for (user, movie), rating in stars.items():
        own = [r for (u, _), r in stars.items() if u == user]
        centre = (sum(own) + 5 * mean) / (len(own) + 5)
        values[user - 1, movie] = 1 + 0.3 * (rating - centre)
    found = EASE_WITH_VALUES.fit(train, preprocessor, EaseSettings(7.0, 0.3)).scores(train)
    np.testing.assert_allclose(found, published(values, values, 7.0), atol=1e-5)


def with_stars(train: Interactions) -> Interactions:
    """Movies of the user's own kind, odd or even, have more stars."""
    stars = {
        (int(user), int(movie)): 5.0 if (user + movie) % 2 == 0 else 2.0
        for user, movie in zip(train.users[train.rows], train.movies, strict=True)
    }
    lists = {
        int(user): train.movies[train.starts[row] : train.starts[row + 1]].tolist()
        for row, user in enumerate(train.users)
    }
    return interactions_of(lists, train.num_movies, stars)


@pytest.mark.parametrize("spec", [EASE, EASE_WITH_VALUES])
def test_each_model_of_a_trial_is_that_of_its_settings(
    spec: ChoiceBaselineSpec[Any], preprocessor: Preprocessor
) -> None:
    train = with_stars(tastes()[0])
    path = list(spec.path(train, preprocessor, spec.default))
    assert [settings.ridge for settings, _ in path] == list(RIDGES)
    assert {settings.stars for settings, _ in path} == {spec.default.stars}
    for settings, model in path:
        alone = spec.fit(train, preprocessor, settings)
        np.testing.assert_array_equal(model.scores(train), alone.scores(train))


def test_the_ridges_are_evenly_spaced_logarithms() -> None:
    assert (RIDGES[0], RIDGES[-1]) == (2700, 30)
    ratios = np.array(RIDGES[:-1]) / np.array(RIDGES[1:])
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=0.05)
