"""BPR: its comparisons, its loss, and the vectors of new users."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ncf.baselines.choice.bpr import Bpr, BprSettings, _Weights, bpr, comparisons
from ncf.data.interactions import Interactions
from tests.ncf.baselines.choice.lists import dense, interactions_of, strangers, tastes

SMALL = BprSettings(dim=4, learning_rate=0.1, l2=0.01, epochs=20)


@pytest.fixture(scope="module")
def fitted() -> tuple[Bpr, Interactions, Interactions]:
    train, held_out = tastes()
    return bpr(train, SMALL), train, held_out


def test_each_rating_is_compared_once_with_a_movie_that_the_user_did_not_rate() -> None:
    train, _ = tastes()
    random = np.random.default_rng(0)
    users, rated, drawn = comparisons(train, random).numpy()
    assert sorted(zip(users, rated, strict=True)) == sorted(
        zip(train.rows, train.movies, strict=True)
    )
    assert not dense(train)[users, drawn].any()
    assert set(drawn) == set(range(train.num_movies))
    again = comparisons(train, random).numpy()
    assert again[0].tolist() != users.tolist()


def test_a_user_who_rated_all_movies_has_no_comparison() -> None:
    train = interactions_of({1: [0, 1, 2], 2: [1]}, 3)
    users, rated, drawn = comparisons(train, np.random.default_rng(0)).tolist()
    assert (users, rated) == ([1], [1])
    assert drawn in ([0], [2])


def test_the_loss_is_that_of_the_formula() -> None:
    weights = _Weights(2, 3, replace(SMALL, l2=0.3))
    with torch.no_grad():
        weights.biases.weight.copy_(torch.tensor([[0.5], [-0.25], [1.0]]))
    w, h = weights.users.weight.detach().numpy(), weights.movies.weight.detach().numpy()
    b = [0.5, -0.25, 1.0]
    expected = 0.0
    for u, i, j in ((0, 1, 2), (1, 0, 1)):
        x = w[u] @ h[i] + b[i] - w[u] @ h[j] - b[j]
        expected += np.log1p(np.exp(-x))
        squares = sum((part**2).sum() for part in (w[u], h[i], h[j])) + b[i] ** 2 + b[j] ** 2
        expected += 0.15 * squares
    found = weights.loss(*torch.tensor([[0, 1], [1, 0], [2, 1]]))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_kinds_of_movies_are_learned(fitted: tuple[Bpr, Interactions, Interactions]) -> None:
    model, train, held_out = fitted
    scores = model.scores(train).numpy()
    kinds = (train.users[:, None] + np.arange(train.num_movies)) % 2 == 0
    rated = dense(train).astype(bool)
    assert scores[kinds & ~rated].mean() > scores[~kinds & ~rated].mean() + 1
    # Movies that were held out are above most others, and the one nobody rated is the last.
    chosen = scores[held_out.rows, held_out.movies][:, None]
    above = (chosen > scores[held_out.rows])[~rated[held_out.rows]].mean()
    assert above > 0.65
    assert int(model.movie_biases.argmin()) == train.num_movies - 1


def test_training_users_have_their_vectors_whatever_is_known_of_them(
    fitted: tuple[Bpr, Interactions, Interactions],
) -> None:
    model, train, held_out = fitted
    expected = model.user_vectors @ model.movie_vectors.T + model.movie_biases
    assert torch.equal(model.scores(train), expected)
    assert torch.equal(model.scores(held_out.of_users(5, 9)), expected[5:9])


def best_fit(model: Bpr, movies: list[int]) -> npt.NDArray[np.float64]:
    """The vector with the least squares, over all comparisons of these movies with all.

    -x / 2 + x^2 / 8 is (x - 2)^2 / 8 up to a constant.
    """
    h, b = model.movie_vectors.double().numpy(), model.movie_biases.double().numpy()
    rows, targets = [], []
    for i in movies:
        for j in range(len(h)):
            rows.append((h[i] - h[j]) / np.sqrt(8 * len(h)))
            targets.append((2 - b[i] + b[j]) / np.sqrt(8 * len(h)))
        for k in range(h.shape[1]):
            rows.append(np.sqrt(model.l2 / 2) * np.eye(h.shape[1])[k])
            targets.append(0.0)
    return np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]


def test_new_users_have_the_least_squares_solution(
    fitted: tuple[Bpr, Interactions, Interactions],
) -> None:
    model, train, _ = fitted
    lists = {1: [0, 2, 4], 2: [], 3: [5], 101: [3]}  # 101 is a training user
    found = model.vectors(interactions_of(lists, train.num_movies))
    for row in (0, 2):
        expected = best_fit(model, list(lists.values())[row])
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)
    assert not found[1].any()
    assert torch.equal(found[3], model.user_vectors[1])
    scores = model.scores(interactions_of({2: []}, train.num_movies))
    assert torch.equal(scores[0], model.movie_biases)


def test_new_users_are_scored_much_as_training_users_with_the_same_ratings(
    fitted: tuple[Bpr, Interactions, Interactions],
) -> None:
    model, train, _ = fitted
    learned = (model.scores(train) - model.movie_biases).numpy()
    folded = (model.scores(strangers(train)) - model.movie_biases).numpy()
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(learned, folded, strict=True)]
    assert np.mean(correlations) > 0.8


def test_it_is_the_same_again_and_another_with_another_seed(
    fitted: tuple[Bpr, Interactions, Interactions],
) -> None:
    model, train, _ = fitted
    assert torch.equal(bpr(train, SMALL).scores(train), model.scores(train))
    other = bpr(train, replace(SMALL, seed=1)).scores(train)
    assert not torch.equal(other, model.scores(train))
