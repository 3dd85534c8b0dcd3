from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ncf import ranking
from ncf.checkpoint import Checkpoint
from ncf.config import ExperimentConfig, ModelConfig
from ncf.fitted import FittedState
from ncf.model import NCF
from ncf.ranking import SeenMovies, top_movies

NOTHING_SEEN = SeenMovies.of(np.array([], np.int32), np.array([], np.int32), 3)


def drawn_checkpoint(fitted: FittedState) -> Checkpoint:
    """A network with random weights."""
    torch.manual_seed(0)
    config = ModelConfig(embedding_dim=4, hidden_dims=(8,), embedding_std=1.0)
    return Checkpoint(NCF(config, fitted).eval(), ExperimentConfig(model=config), fitted, {})


@pytest.fixture
def scored(fitted: FittedState) -> Callable[[list[float]], Checkpoint]:
    """``scored([a, b, c, d])`` predicts just these stars for the four movies."""

    def make(scores: list[float]) -> Checkpoint:
        config = ModelConfig(inputs=("movie",), embedding_dim=1, hidden_dims=())
        known = replace(
            fitted, movies=replace(fitted.movies, embedding_index=np.array([1, 2, 3, 4]))
        )
        model = NCF(config, known).eval()
        with torch.no_grad():
            model.get_parameter("branches.movie.table.weight")[1:, 0] = torch.tensor(scores)
            model.output.weight.fill_(1)
            model.output.bias.fill_(0)
        return Checkpoint(model, ExperimentConfig(model=config), known, {})

    return make


def brute_force(
    checkpoint: Checkpoint, user: int, seen: set[int], top_n: int
) -> list[tuple[int, float]]:
    """One pair at a time, sorted by Python."""
    pairs = []
    for movie in range(len(checkpoint.fitted.movies)):
        with torch.no_grad():
            score = checkpoint.model(torch.tensor([user]), torch.tensor([movie])).item()
        pairs.append((movie, score))
    unseen = [(movie, score) for movie, score in pairs if movie not in seen]
    return sorted(unseen, key=lambda pair: (-pair[1], pair[0]))[:top_n]


@pytest.mark.parametrize("pairs_at_once", [1, 80, 200, 100_000])
def test_the_ranking_equals_brute_force_at_any_block_size(
    pairs_at_once: int, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_PAIRS_AT_ONCE", pairs_at_once)
    checkpoint = drawn_checkpoint(world.fitted)
    rated_by, rated = world.train.users.numpy()[:900], world.train.movies.numpy()[:900]
    seen = SeenMovies.of(rated_by, rated, world.fitted.num_users)
    users = np.array([7, 1, 0, 120, 3])  # in no order; 0 is unknown
    found = top_movies(checkpoint, users, seen, 10)
    assert found.movies.shape == found.stars.shape == (5, 10)
    lowest, highest = world.fitted.rating_min, world.fitted.rating_max
    for row, user in enumerate(users):
        expected = brute_force(checkpoint, user, set(rated[rated_by == user]), 10)
        assert found.movies[row].tolist() == [movie for movie, _ in expected]
        stars = np.clip([score for _, score in expected], lowest, highest)
        np.testing.assert_allclose(found.stars[row], stars, rtol=1e-5)
        assert not set(found.movies[row]) & set(rated[rated_by == user])


def test_every_user_has_an_own_list(world: Any) -> None:
    found = top_movies(drawn_checkpoint(world.fitted), np.arange(1, 121), seen_none(120), 5)
    assert len({tuple(row) for row in found.movies}) > 10


def seen_none(users: int) -> SeenMovies:
    return SeenMovies.of(np.array([], np.int32), np.array([], np.int32), users)


def test_movies_that_a_user_has_rated_are_left_out(
    scored: Callable[[list[float]], Checkpoint],
) -> None:
    seen = SeenMovies.of(np.array([2, 1, 2], np.int32), np.array([3, 0, 1], np.int32), 3)
    found = top_movies(scored([1.0, 4.0, 2.0, 3.0]), np.array([1, 2, 3]), seen, 2)
    assert found.movies.tolist() == [[1, 3], [2, 0], [1, 3]]
    assert found.stars.tolist() == [[4, 3], [2, 1], [4, 3]]


def test_past_the_last_unseen_movie_there_is_nothing(
    scored: Callable[[list[float]], Checkpoint],
) -> None:
    seen = SeenMovies.of(
        np.array([1, 1, 1, 2, 2, 2, 2], np.int32), np.array([0, 1, 3, 0, 1, 2, 3], np.int32), 3
    )
    found = top_movies(scored([1.0, 4.0, 2.0, 3.0]), np.array([1, 2]), seen, 3)
    assert found.movies.tolist() == [[2, -1, -1], [-1, -1, -1]]
    np.testing.assert_array_equal(found.stars, [[2, np.nan, np.nan], [np.nan] * 3])


def test_more_movies_than_there_are_cannot_be_had(
    scored: Callable[[list[float]], Checkpoint],
) -> None:
    found = top_movies(scored([1.0, 4.0, 2.0, 3.0]), np.array([1]), NOTHING_SEEN, 100)
    assert found.movies.tolist() == [[1, 3, 2, 0]]


def test_ties_go_to_the_movie_that_comes_first(
    scored: Callable[[list[float]], Checkpoint],
) -> None:
    found = top_movies(scored([2.0, 3.0, 2.0, 3.0]), np.array([1]), NOTHING_SEEN, 3)
    assert found.movies.tolist() == [[1, 3, 0]]


def test_stars_are_clipped_but_the_order_is_that_of_the_unclipped_ones(
    scored: Callable[[list[float]], Checkpoint],
) -> None:
    found = top_movies(scored([6.0, 9.0, -2.0, 7.0]), np.array([1]), NOTHING_SEEN, 4)
    assert found.movies.tolist() == [[1, 3, 0, 2]]
    assert found.stars.tolist() == [[5, 5, 5, 0.5]]


def test_nobody_gets_nothing(scored: Callable[[list[float]], Checkpoint]) -> None:
    nobody: npt.NDArray[np.int64] = np.array([], np.int64)
    found = top_movies(scored([1.0, 2.0, 3.0, 4.0]), nobody, NOTHING_SEEN, 2)
    assert found.movies.shape == found.stars.shape == (0, 2)


def test_seen_movies_are_those_of_each_user_and_of_no_other() -> None:
    users = np.array([3, 1, 3, 0, 1, 3], np.int32)
    movies = np.array([5, 4, 9, 7, 2, 1], np.int32)
    seen = SeenMovies.of(users, movies, 4)
    assert [sorted(seen.by(user)) for user in range(5)] == [[7], [2, 4], [], [1, 5, 9], []]
