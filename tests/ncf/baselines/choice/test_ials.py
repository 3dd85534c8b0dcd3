"""iALS against ``implicit``, and against its normal equations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ncf.baselines.choice.ials import Ials, IalsSettings, ials, ials_from, solved
from ncf.data.interactions import Interactions
from tests.ncf.baselines.choice.lists import dense, interactions_of, strangers, tastes

PUBLISHED = json.loads(Path(__file__).with_name("published_ials.json").read_text())

SMALL = IalsSettings(dim=4, regularization=0.02, unobserved_weight=0.1, epochs=3)


def solution(
    rated: npt.NDArray[np.float64], fixed: npt.NDArray[np.float64], settings: IalsSettings
) -> npt.NDArray[np.float64]:
    """The vector of one user (or movie) with ``rated: [O]``, from its normal equations."""
    weight = settings.unobserved_weight
    system = weight * fixed.T @ fixed
    right = np.zeros(fixed.shape[1])
    for other in np.flatnonzero(rated):
        system += np.outer(fixed[other], fixed[other])
        right += fixed[other]
    scale = (rated.sum() + weight * len(fixed)) ** settings.nu
    return np.linalg.solve(system + settings.regularization * scale * np.eye(len(right)), right)


def test_vectors_are_those_of_implicit() -> None:
    lists = PUBLISHED["lists"]
    train = interactions_of(dict(enumerate(lists)), PUBLISHED["num_movies"])
    # implicit minimises (c - 1) times our loss for vectors that are longer by a factor: there a
    # rated pair has the weight c in both of its terms, here 1 + a in one and 1 in the other.
    confidence = PUBLISHED["confidence"]
    longer = (confidence / (confidence - 1)) ** 0.5
    settings = IalsSettings(
        dim=len(PUBLISHED["initial"][0]),
        regularization=PUBLISHED["regularization"] / confidence,
        unobserved_weight=1 / (confidence - 1),
        nu=0.0,
        epochs=PUBLISHED["iterations"],
    )
    initial = torch.tensor(PUBLISHED["initial"], dtype=torch.float64) / longer
    model = ials_from(train, initial, settings)
    expected = np.array(PUBLISHED["movie_vectors"])
    np.testing.assert_allclose(model.movie_vectors * longer, expected, atol=1e-9)
    expected = np.array(PUBLISHED["user_vectors"])
    np.testing.assert_allclose(model.user_vectors(strangers(train)) * longer, expected, atol=1e-9)


@pytest.mark.parametrize("dim", [2, 20])  # fewer and more than the ratings of most
@pytest.mark.parametrize("nu", [0.0, 0.5, 1.0])
def test_vectors_solve_the_normal_equations(dim: int, nu: float) -> None:
    train, _ = tastes()
    settings = replace(SMALL, dim=dim, nu=nu)
    fixed = torch.from_numpy(np.random.default_rng(1).normal(size=(train.num_movies, dim)))
    found = solved(train.starts, train.movies.astype(np.int64), fixed, settings)
    for user, rated in enumerate(dense(train)):
        expected = solution(rated, fixed.numpy(), settings)
        np.testing.assert_allclose(found[user], expected, atol=1e-8)


def test_movies_vectors_solve_theirs_and_are_zero_without_ratings() -> None:
    train, _ = tastes()
    before, after = (ials(train, replace(SMALL, epochs=epochs)) for epochs in (2, 3))
    users = before.user_vectors(train).double().numpy()
    for movie, rated in enumerate(dense(train).T):
        expected = solution(rated, users, SMALL)
        np.testing.assert_allclose(after.movie_vectors[movie], expected, atol=1e-4)
    assert not after.movie_vectors[-1].any()
    assert after.movie_vectors[:-1].any(dim=1).all()


def loss(model: Ials, train: Interactions) -> float:
    """What is minimised, over dense matrices."""
    settings, rated = model.settings, dense(train)
    users, movies = model.user_vectors(train).double(), model.movie_vectors.double()
    scores = (users @ movies.T).numpy()
    weight = settings.unobserved_weight
    of_users = (rated.sum(axis=1) + weight * rated.shape[1]) @ users.square().sum(dim=1).numpy()
    of_movies = (rated.sum(axis=0) + weight * rated.shape[0]) @ movies.square().sum(dim=1).numpy()
    errors = (rated * (scores - 1) ** 2).sum() + weight * (scores**2).sum()
    return float(errors + settings.regularization * (of_users + of_movies))


def test_every_epoch_lowers_the_loss() -> None:
    train, _ = tastes()
    losses = [loss(ials(train, replace(SMALL, epochs=epochs)), train) for epochs in (1, 2, 4, 8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 1.01 * losses[-1]


def test_training_users_and_strangers_with_their_ratings_have_the_same_scores() -> None:
    train, _ = tastes()
    model = ials(train, SMALL)
    scores = model.scores(train)
    assert torch.equal(model.scores(strangers(train)), scores)
    for user in (0, 17, 59):
        alone = model.scores(strangers(train.of_users(user, user + 1)))
        torch.testing.assert_close(alone, scores[user : user + 1], rtol=1e-4, atol=1e-5)


def test_a_user_without_ratings_has_scores_of_zero() -> None:
    train, _ = tastes()
    known = interactions_of({1: [2], 2: [], 3: [0, 4]}, train.num_movies)
    scores = ials(train, SMALL).scores(known)
    assert scores.any(dim=1).tolist() == [True, False, True]


@pytest.mark.parametrize("dim", [3, 12])
def test_small_blocks_give_the_same(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = tastes()
    settings = replace(SMALL, dim=dim)
    expected = ials(train, settings).scores(train)
    monkeypatch.setattr("ncf.baselines.choice.ials._CELLS", 40)
    found = ials(train, settings).scores(train)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_kinds_of_movies_are_learned() -> None:
    train, held_out = tastes()
    scores = ials(train, replace(SMALL, epochs=10)).scores(train).numpy()
    own_kind = (held_out.users[held_out.rows] + held_out.movies) % 2 == 0
    chosen = scores[held_out.rows, held_out.movies]
    assert chosen[own_kind].mean() > 2 * chosen[~own_kind].mean()


def test_it_is_the_same_again_and_another_with_another_seed() -> None:
    train, _ = tastes()
    first, again = (ials(train, SMALL).scores(train) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, ials(train, replace(SMALL, seed=1)).scores(train))
