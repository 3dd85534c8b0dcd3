"""The most popular movies, counted by hand."""

from __future__ import annotations

import numpy as np

from ncf.baselines.choice.popularity import most_popular, popular_lately
from ncf.models.choice.values import SECONDS_PER_YEAR
from tests.ncf.baselines.choice.lists import interactions_of, strangers

YEAR = round(SECONDS_PER_YEAR)

# Movie 2 has three ratings, 0 and 3 two each, 1 one and 4 none.
LISTS = {7: [0, 2], 8: [3, 2, 1], 9: [2, 3, 0]}


def test_movies_are_ordered_by_their_ratings_then_by_position() -> None:
    train = interactions_of(LISTS, 5)
    model = most_popular(train)
    assert model.order.tolist() == [2, 0, 3, 1, 4]
    assert model.scores(train).tolist() == [[4.0, 2.0, 5.0, 3.0, 1.0]] * 3


def test_lately_only_the_ratings_of_the_last_years_count() -> None:
    # Newest of all: movie 1. Movie 3 is as new, once; movie 2 is two years old, three times.
    times = {(7, 0): 3 * YEAR, (8, 3): 3 * YEAR + YEAR // 10, (8, 1): 4 * YEAR, (9, 0): YEAR}
    times |= {(user, 2): 2 * YEAR for user in LISTS}
    train = interactions_of(LISTS, 5, times=times)
    # Of those with one rating, 0 and 3 have two in all, and 1 has one.
    assert popular_lately(train, 1.0).order.tolist() == [0, 3, 1, 2, 4]
    assert popular_lately(train, 0.95).order.tolist() == [3, 1, 2, 0, 4]
    assert popular_lately(train, 0.5).order.tolist() == [1, 2, 0, 3, 4]
    assert popular_lately(train, 2.0).order.tolist() == [2, 0, 3, 1, 4]
    assert popular_lately(train, 99.0).order.tolist() == most_popular(train).order.tolist()


def test_every_user_has_the_same_ranking() -> None:
    train = interactions_of(LISTS, 5)
    model = most_popular(train)
    asking = interactions_of({1: [], 2: [4]}, 5)
    for known in (asking, strangers(asking)):
        np.testing.assert_array_equal(model.scores(known), model.scores(train)[:2])


def test_without_ratings_it_is_the_order_of_the_table() -> None:
    nothing = interactions_of({1: []}, 3)
    assert most_popular(nothing).order.tolist() == [0, 1, 2]
    assert popular_lately(nothing, 1.0).order.tolist() == [0, 1, 2]


def test_scores_of_many_movies_differ() -> None:
    many = interactions_of({1: [299_999]}, 300_000)
    scores = most_popular(many).scores(many)[0]
    assert len(scores.unique()) == 300_000
    assert int(scores.argmax()) == 299_999
