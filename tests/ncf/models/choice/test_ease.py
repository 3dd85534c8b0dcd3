"""EASE: against the published closed form, the normal equations, and itself in the other form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ncf.choice_config import EaseConfig, ValuesConfig
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Preprocessor
from ncf.models.choice.content import content_columns, name_columns
from ncf.models.choice.context import Bumps
from ncf.models.choice.ease import (
    Ease,
    EaseInputs,
    EasePath,
    prefers_dual,
)
from ncf.models.choice.experts import ProductOfExperts, combined
from ncf.models.choice.values import age_weights, rating_values, user_weights

YEAR = 365.25 * 86_400
PLAIN = EaseConfig(ridges=(10.0,), values=ValuesConfig(stars=0.0), content=0.0, context=0.0)


def drawn(num_users: int, num_movies: int, seed: int = 0) -> Interactions:
    """Random ratings over eight years; each user has at least two."""
    generator = np.random.default_rng(seed)
    rated = generator.random((num_users, num_movies)) < 0.3
    rated[:, :2] = True
    users, movies = np.nonzero(rated)
    stars = generator.integers(1, 11, len(users)) / 2
    times = generator.integers(0, int(8 * YEAR), len(users))
    return Interactions.of(users + 1, movies.astype(np.int32), stars, times, num_movies)


def catalogue(preprocessor: Preprocessor, num_movies: int) -> Preprocessor:
    """The same with so many movies, each a copy of one of its four."""
    copies = np.arange(num_movies) % 4
    movies = preprocessor.movies
    return replace(
        preprocessor,
        movies=replace(
            movies,
            ids=np.arange(num_movies),
            titles=tuple(map(str, range(num_movies))),
            embedding_index=np.arange(num_movies) + 1,
            genres=movies.genres[copies],
            decade=movies.decade[copies],
            numeric=movies.numeric[copies],
            train_counts=np.ones(num_movies, np.int64),
            names={name: lists[copies] for name, lists in movies.names.items()},
        ),
    )


def published(rows: npt.NDArray[np.float64], ridge: float) -> npt.NDArray[np.float64]:
    """B of the paper's listing (Steck, 2019)."""
    gram = rows.T @ rows
    gram[np.diag_indices(len(gram))] += ridge
    inverse = np.linalg.inv(gram)
    weights = inverse / (-np.diag(inverse))
    weights[np.diag_indices(len(gram))] = 0
    return weights


@pytest.mark.parametrize("num_users", [6, 40], ids=["dual", "primal"])
def test_without_values_content_and_context_it_is_the_published_model(
    num_users: int, preprocessor: Preprocessor
) -> None:
    train = drawn(num_users, 12)
    rows = train.matrix().toarray().astype(np.float64)
    found = EasePath(train, catalogue(preprocessor, 12), PLAIN).at(10.0).scores(train)
    np.testing.assert_allclose(found, rows @ published(rows, 10.0), atol=1e-5)


FULL = EaseConfig(
    ridges=(3.0,),
    values=ValuesConfig(stars=0.5, damping=2.0),
    content=2.0,
    names=1.0,
    context=1.5,
    user_half_life_years=3.0,
    rating_half_life_years=2.0,
)


def full_rows(train: Interactions, preprocessor: Preprocessor) -> npt.NDArray[np.float64]:
    """A of the module's docstring for ``FULL``, written without its classes."""
    mean = train.ratings.mean()
    lines = []
    newest = train.times.max()
    eras = Bumps(float(train.times.min()), float(newest), 6)
    for user in range(len(train)):
        own = slice(train.starts[user], train.starts[user + 1])
        stars, times = train.ratings[own], train.times[own]
        values = 1 + 0.5 * (stars - (stars.sum() + 2 * mean) / (len(stars) + 2))
        values = np.maximum(values, 0.05) * 0.5 ** ((times.max() - times) / YEAR / 2)
        line = np.zeros(train.num_movies + 6)
        line[train.movies[own]] = values
        line[train.num_movies :] = 1.5 * eras.of(times.max())
        lines.append(line * np.sqrt(0.5 ** ((newest - times.max()) / YEAR / 3)))
    content = np.concatenate(
        [2 * content_columns(preprocessor).T, name_columns(preprocessor.movies).T]
    )
    return np.concatenate([lines, np.pad(content, [(0, 0), (0, 6)])])


@pytest.mark.parametrize("num_users", [6, 40], ids=["dual", "primal"])
def test_with_all_of_them_it_is_the_same_regression_with_more_rows_and_columns(
    num_users: int, preprocessor: Preprocessor
) -> None:
    train, movies = drawn(num_users, 20), catalogue(preprocessor, 20)
    weights = published(full_rows(train, movies), 3.0)
    newest = train.times.max()
    # A row's weight of the user is for training alone.
    of_users = np.sqrt(0.5 ** ((newest - train.last_times) / YEAR / 3))[:, None]
    rows = full_rows(train, movies)[:num_users] / of_users
    found = EasePath(train, movies, FULL).at(3.0).scores(train)
    np.testing.assert_allclose(found, (rows @ weights)[:, :20], atol=2e-5)


def test_dual_and_primal_are_the_same(
    preprocessor: Preprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, movies = drawn(10, 60), catalogue(preprocessor, 60)
    dual = EasePath(train, movies, FULL).at(3.0)
    monkeypatch.setattr("ncf.models.choice.ease.prefers_dual", lambda *sizes, **settings: False)
    primal = EasePath(train, movies, FULL).at(3.0)
    assert set(dual.tensors()) == {"factors", "shrinkage"}
    assert set(primal.tensors()) == {"inverse"}
    torch.testing.assert_close(dual.scores(train), primal.scores(train), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(dual.weights_to(7), primal.weights_to(7), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(dual.similarities(7), primal.similarities(7), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("num_rows", "num_movies", "num_ridges", "is_capped", "expected"),
    [
        (638, 9_742, 1, False, True),
        (6_250, 10_000, 1, False, False),  # 7 * 6.25**3 is 1709, of one inverse 1000
        (6_250, 10_000, 2, False, True),
        (6_250, 87_000, 1, True, True),
        (200_000, 87_000, 5, True, False),
        (6_040, 3_706, 5, False, False),
    ],
)
def test_the_cheaper_decomposition_is_taken(
    num_rows: int, num_movies: int, num_ridges: int, is_capped: bool, expected: bool
) -> None:
    assert prefers_dual(num_rows, num_movies, num_ridges, is_capped=is_capped) is expected


def test_each_ridge_of_a_path_is_that_of_a_decomposition_of_its_own(
    preprocessor: Preprocessor,
) -> None:
    train, movies = drawn(6, 12), catalogue(preprocessor, 12)
    several = FULL.model_copy(update={"ridges": (1.0, 30.0)})
    for ridge, model in zip(several.ridges, EasePath(train, movies, several).each(), strict=True):
        alone = EasePath(train, movies, several.model_copy(update={"ridges": (ridge,)}))
        torch.testing.assert_close(model.scores(train), alone.at(ridge).scores(train))


@pytest.mark.parametrize("num_users", [6, 40], ids=["dual", "primal"])
def test_attributions_add_up_to_the_scores(num_users: int, preprocessor: Preprocessor) -> None:
    train = drawn(num_users, 12)
    model = EasePath(train, catalogue(preprocessor, 12), FULL).at(3.0)
    one, wanted = train.of_users(3, 4), torch.tensor([0, 5, 11])
    of_ratings, of_context = model.attributions(one, wanted)
    assert of_ratings.shape == (3, one.num_ratings)
    torch.testing.assert_close(
        of_ratings.sum(dim=1) + of_context, model.scores(one)[0, wanted], atol=1e-5, rtol=1e-4
    )
    # A movie says nothing about itself.
    (own,) = np.flatnonzero(one.movies == 0)
    assert of_ratings[0, own] == 0


def test_attributions_are_of_one_user(preprocessor: Preprocessor) -> None:
    train = drawn(6, 12)
    model = EasePath(train, catalogue(preprocessor, 12), PLAIN).at(3.0)
    with pytest.raises(ValueError, match="of one user, found 2"):
        model.attributions(train.of_users(0, 2), torch.tensor([0]))


def test_new_users_are_scored_as_training_users_with_the_same_ratings(
    preprocessor: Preprocessor,
) -> None:
    train = drawn(6, 12)
    model = EasePath(train, catalogue(preprocessor, 12), FULL).at(3.0)
    new = replace(train.of_users(2, 3), users=np.array([-1]))
    torch.testing.assert_close(model.scores(new)[0], model.scores(train)[2])


def test_only_the_most_rated_movies_have_columns_if_there_are_too_many(
    preprocessor: Preprocessor,
) -> None:
    train, movies = drawn(40, 12), catalogue(preprocessor, 12)
    model = EasePath(train, movies, PLAIN.model_copy(update={"max_movies": 8})).at(10.0)
    kept = np.sort(np.argsort(-train.movie_counts(), kind="stable")[:8])
    rows = train.matrix().toarray().astype(np.float64)[:, kept]
    expected = rows @ published(rows, 10.0)
    found = model.scores(train).numpy()
    np.testing.assert_allclose(found[:, kept], expected, atol=1e-5)
    others = np.setdiff1d(np.arange(12), kept)
    np.testing.assert_allclose(
        found[:, others], expected.min(axis=1)[:, None].repeat(4, 1), atol=1e-5
    )
    assert model.similarities(int(others[0])).tolist() == [0] * 12
    of_ratings, _ = model.attributions(train.of_users(0, 1), torch.from_numpy(others[:1]))
    assert of_ratings.abs().max() == 0


@pytest.mark.parametrize("num_users", [6, 40], ids=["dual", "primal"])
def test_a_model_is_made_again_from_its_tensors(num_users: int, preprocessor: Preprocessor) -> None:
    train = drawn(num_users, 12)
    config = FULL.model_copy(update={"max_movies": 9})
    model = EasePath(train, catalogue(preprocessor, 12), config).at(3.0)
    again = Ease.of_tensors(model.inputs, model.tensors(), 12)
    assert torch.equal(again.scores(train), model.scores(train))


def test_similarities_are_partial_correlations(preprocessor: Preprocessor) -> None:
    train = drawn(40, 12)
    rows = train.matrix().toarray().astype(np.float64)
    model = EasePath(train, catalogue(preprocessor, 12), PLAIN).at(10.0)
    inverse = np.linalg.inv(rows.T @ rows + 10 * np.eye(12))
    expected = -inverse[4] / np.sqrt(np.diag(inverse) * inverse[4, 4])
    expected[4] = 1
    np.testing.assert_allclose(model.similarities(4), expected, atol=1e-5)


# -- Values of ratings -----------------------------------------------------------------------------


def test_values_rise_with_the_stars_above_the_users_damped_mean() -> None:
    train = Interactions.of(
        np.array([1, 1, 2]),
        np.array([0, 1, 0]),
        np.array([5.0, 2.0, 0.5]),
        np.zeros(3),
        num_movies=2,
    )
    # Means of user 1: (5 + 2 + 2 * 3) / (2 + 2) = 3.25, of user 2: (0.5 + 2 * 3) / 3 = 2.1667.
    found = rating_values(train, ValuesConfig(stars=0.4, damping=2.0), mean=3.0)
    np.testing.assert_allclose(found, [1.7, 0.5, 1 - 0.4 * 1.66667], rtol=1e-5)
    floor = rating_values(train, ValuesConfig(stars=0.4, damping=2.0, floor=0.6), mean=3.0)
    np.testing.assert_allclose(floor, [1.7, 0.6, 0.6], rtol=1e-5)
    assert rating_values(train, ValuesConfig(stars=0.0), mean=3.0).tolist() == [1, 1, 1]


def test_older_ratings_and_users_count_half_after_a_half_life() -> None:
    times = np.array([0, YEAR, 3 * YEAR])
    train = Interactions.of(np.array([1, 1, 2]), np.array([0, 1, 0]), np.ones(3), times, 2)
    np.testing.assert_allclose(age_weights(train, 1.0), [0.5, 1, 1])
    np.testing.assert_allclose(user_weights(train, 1.0), [0.25, 1])
    assert age_weights(train, 0.0).tolist() == [1, 1, 1]
    assert user_weights(train, 0.0).tolist() == [1, 1]


def test_bumps_are_one_at_their_centres_and_constant_beyond_the_ends() -> None:
    bumps = Bumps(0.0, 10.0, 3)
    np.testing.assert_allclose(np.diag(bumps.of([0.0, 5.0, 10.0])), 1)
    np.testing.assert_allclose(bumps.of([5.0])[0, 0], np.exp(-0.5))
    np.testing.assert_array_equal(bumps.of([-7.0, 12.0]), bumps.of([0.0, 10.0]))
    assert np.isfinite(Bumps(4.0, 4.0, 3).of([4.0])).all()  # a data set of one moment


def test_inputs_without_ratings_are_finite() -> None:
    nothing = Interactions.of([], [], [], [], num_movies=3)
    inputs = EaseInputs.of(nothing, FULL)
    one = Interactions.of(np.array([1]), np.array([2]), np.array([4.0]), np.array([9]), 3)
    assert np.isfinite(inputs.movies(one).toarray()).all()


# -- Movies' features ------------------------------------------------------------------------------


def test_content_is_centred(preprocessor: Preprocessor) -> None:
    columns = content_columns(preprocessor)
    assert columns.shape == (4, 3 + 2 + 3)  # genres, decades, numbers with a missing indicator
    np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(columns[:, 0], [0.5, 0.5, -0.5, -0.5])  # Comedy


def test_names_keep_the_products_of_movies(preprocessor: Preprocessor) -> None:
    names = name_columns(catalogue(preprocessor, 8).movies)
    # Each list is [[1, 2], [2], [], [1]], twice: of each of three names 4, of each other 4 movies.
    one_hot = np.array([[1, 1], [0, 1], [0, 0], [1, 0]] * 2) / 2
    np.testing.assert_allclose(names @ names.T, 3 * one_hot @ one_hot.T, atol=1e-5)


def test_a_catalogue_without_names_has_no_columns(preprocessor: Preprocessor) -> None:
    movies = preprocessor.movies
    assert name_columns(replace(movies, names={})).shape == (4, 0)
    empty = {"cast": np.zeros((4, 2), np.int32)}
    assert name_columns(replace(movies, names=empty)).shape == (4, 0)


# -- Product of experts ----------------------------------------------------------------------------


class Fixed(Ease):
    def __init__(self, values: list[float]) -> None:
        self._values = torch.tensor([values])

    def scores(self, known: Interactions) -> torch.Tensor:
        return self._values


def test_experts_multiply_the_distributions() -> None:
    ease, logits = [0.5, 0.0, -0.2], [1.0, 2.0, 0.0]
    one = drawn(1, 3)
    found = ProductOfExperts(Fixed(ease), Fixed(logits), power=0.5, floor=0.02).scores(one)
    spread = np.std(ease, ddof=1)
    softmax = np.exp(logits) / np.exp(logits).sum()
    expected = np.log(np.array([0.5 / spread, 0.02, 0.02])) + 0.5 * np.log(softmax)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_experts_without_any_preference_of_ease_are_ordered_by_the_network() -> None:
    found = combined(torch.zeros(1, 3), torch.tensor([[1.0, 3.0, 2.0]]), 0.5, 0.02)
    assert found.isfinite().all()
    assert found[0].argsort().tolist() == [0, 2, 1]
