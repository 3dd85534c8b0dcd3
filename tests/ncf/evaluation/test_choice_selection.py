"""The one-standard-error rule, with values and lists of recommendations that are given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ncf.data.interactions import Interactions
from ncf.evaluation.choice_data import ChoiceData
from ncf.evaluation.choice_selection import ValidationUsers
from ncf.evaluation.holdout import Holdout
from ncf.evaluation.ranking_metrics import RankingMetric
from ncf.models.choice.base import ChoiceModel

NUM_USERS, NUM_MOVIES = 6, 40


def users(stars: float = 5.0) -> ValidationUsers:
    """Each of six users has to find movie 0, at the first rank or not at all."""
    ids = np.arange(NUM_USERS)
    known = Interactions.of(ids, ids + 30, np.ones(6), ids, NUM_MOVIES)
    held_out = Interactions.of(ids, np.zeros(6), np.full(6, stars), ids, NUM_MOVIES)
    data = SimpleNamespace(
        validation=Holdout.of(known, held_out), rank=lambda model, holdout, at: model
    )
    return ValidationUsers(cast(ChoiceData, data), RankingMetric("hit_rate", 1))


def model(*hits: int, others: int = 1) -> ChoiceModel:
    """Rankings of one movie: movie 0 for users who find it, else one of so many other movies."""
    ranked: Any = np.array([[0 if hit else 1 + i % others] for i, hit in enumerate(hits)])
    return cast(ChoiceModel, ranked)


def test_the_value_is_the_mean_over_users_with_a_liked_movie() -> None:
    assert users().value(model(1, 1, 0, 0, 0, 0)) == pytest.approx(1 / 3)
    assert users(stars=3.5).value(model(1, 1, 1, 1, 1, 1)) == 0


def test_of_models_within_a_standard_error_the_one_that_recommends_most_is_chosen() -> None:
    best = model(1, 1, 1, 1, 1, 0)
    # Differences (1, 1, 0, 0, 0, -1): mean 1/6, variance (3 - 6/36) / 5, standard error 0.307.
    close = model(0, 0, 1, 1, 1, 1, others=9)
    # Three users less: mean 1/2, standard error sqrt(1/4 * 6/5 / 6) = 0.2236.
    far = model(0, 0, 0, 1, 1, 0, others=9)
    assert users().choose([best, far, close], tolerance=1.0) == 2
    assert users().choose([best, far, close], tolerance=0.5) == 0
    assert users().choose([best, far], tolerance=1.0) == 0
    assert users().choose([far, best, close], tolerance=0.0) == 1


def test_of_equally_many_movies_the_higher_metric_is_chosen() -> None:
    better, worse = model(1, 1, 1, 1, 1, 0), model(0, 0, 1, 1, 1, 1)
    assert users().choose([worse, better], tolerance=1.0) == 1


def test_without_a_liked_movie_the_first_is_chosen() -> None:
    assert users(stars=3.0).choose([model(*[0] * 6), model(*[1] * 6, others=9)], tolerance=1.0) == 0
