"""Each user's ratings are divided into known ones and choices."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from ncf.data.interactions import Interactions
from ncf.training.choice.masks import SHARES, Mask, known_ratings

MASKS = get_args(Mask)


def ratings_of(counts: list[int], seed: int = 0) -> Interactions:
    """So many ratings of each user, some of them of the same time."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(len(counts)), counts)
    count = len(users)
    return Interactions.of(
        users,
        rng.integers(0, 100, count).astype(np.int32),
        np.ones(count, np.float32),
        rng.integers(0, 20, count),
        100,
    )


@pytest.mark.parametrize("mask", MASKS)
def test_every_user_has_a_known_rating_and_a_choice(mask: Mask) -> None:
    ratings = ratings_of([2, 3, 2, 50, 2, 4] * 50)
    rng = np.random.default_rng(1)
    for _ in range(20):
        is_known = known_ratings(ratings, mask, rng)
        num_known = np.add.reduceat(is_known, ratings.starts[:-1], dtype=int)
        assert (num_known >= 1).all()
        assert (num_known < ratings.counts).all()


def test_forward_known_ratings_are_the_oldest() -> None:
    ratings = ratings_of([2, 9, 30, 200])
    is_known = known_ratings(ratings, "forward", np.random.default_rng(2))
    for start, stop in zip(ratings.starts, ratings.starts[1:], strict=False):
        known, times = is_known[start:stop], ratings.times[start:stop]
        assert times[known].max() <= times[~known].min()
        assert not np.diff(known.astype(int)).max(initial=0) > 0


def test_random_known_ratings_are_of_any_position() -> None:
    ratings = ratings_of([10] * 1000)
    is_known = known_ratings(ratings, "random", np.random.default_rng(3)).reshape(1000, 10)
    # The standard error of each is .02.
    np.testing.assert_allclose(is_known.mean(axis=0), 0.5, atol=0.08)


@pytest.mark.parametrize("mask", MASKS)
def test_shares_are_uniform_between_their_bounds(mask: Mask) -> None:
    ratings = ratings_of([400] * 500)
    is_known = known_ratings(ratings, mask, np.random.default_rng(4))
    shares = np.sort(is_known.reshape(500, 400).mean(axis=1))
    expected = np.linspace(*SHARES, 500)
    np.testing.assert_allclose(shares, expected, atol=0.07)


@pytest.mark.parametrize("mask", MASKS)
def test_the_generator_alone_determines_the_mask(mask: Mask) -> None:
    ratings = ratings_of([5, 20, 8])
    first, same, other = (
        known_ratings(ratings, mask, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert (first == same).all()
    assert (first != other).any()
