"""Item neighbours by hand, and against the formulas as plain loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ncf.baselines.choice.item_knn import ItemKnnSettings, item_knn, nearest
from ncf.data.interactions import Interactions
from tests.ncf.baselines.choice.lists import dense, interactions_of, strangers, tastes


def reference(
    train: Interactions, known: Interactions, settings: ItemKnnSettings
) -> npt.NDArray[np.float64]:
    """``[B, M]`` scores."""
    rated, asking = dense(train), dense(known)
    power = settings.normalization
    scores = np.zeros(asking.shape)
    for i in range(train.num_movies):
        similar = []
        for j in range(train.num_movies):
            common = sum(rated[:, i] * rated[:, j])
            if j != i and common:
                norm = sum(rated[:, i]) ** power * sum(rated[:, j]) ** (1 - power)
                similar.append((common / (norm + settings.shrinkage), -j))
        for similarity, j in sorted(similar, reverse=True)[: settings.neighbours]:
            scores[:, i] += similarity * asking[:, -j]
    return scores


def test_a_score_is_the_sum_of_shrunk_cosines_by_hand() -> None:
    train = interactions_of({1: [0, 1], 2: [0, 1, 2], 3: [0], 4: [0]}, 4)
    model = item_knn(train, ItemKnnSettings(neighbours=3, shrinkage=1.0))
    # Counts 4, 2, 1 and 0; two users rated 0 and 1, one rated 2 with either.
    of_1 = [2 / (8**0.5 + 1), 0, 1 / (2**0.5 + 1), 0]
    both = [1 / (4**0.5 + 1) + of_1[0], of_1[2], 1 / (4**0.5 + 1), 0]
    found = model.scores(interactions_of({8: [1], 9: [2, 1]}, 4))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0], of_1, rtol=1e-6)
    np.testing.assert_allclose(found[1], [both[0], of_1[2], of_1[2], 0], rtol=1e-6)


@pytest.mark.parametrize("neighbours", [1, 3, 200])
@pytest.mark.parametrize("normalization", [0.0, 0.3, 1.0])
def test_scores_are_those_of_the_formulas(neighbours: int, normalization: float) -> None:
    train, held_out = tastes()
    settings = ItemKnnSettings(neighbours, 2.0, normalization)
    found = item_knn(train, settings).scores(held_out)
    np.testing.assert_allclose(found, reference(train, held_out, settings), rtol=1e-5, atol=1e-7)


def test_blocks_of_movies_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out = tastes()
    settings = ItemKnnSettings(5)
    expected = item_knn(train, settings)
    monkeypatch.setattr("ncf.baselines.choice.item_knn._CELLS", 7 * train.num_movies)
    found = item_knn(train, settings)
    assert torch.equal(found.scores(held_out), expected.scores(held_out))
    assert found.similarities.nnz <= 5 * train.num_movies


def test_of_equally_similar_movies_the_first_in_the_table_count() -> None:
    values = np.array([[0.5, 0.2, 0.5, 0.5, 0.9], [0.0, 0.0, 0.1, 0.0, 0.0]], np.float32)
    kept = nearest(values, ItemKnnSettings(3)).toarray()
    np.testing.assert_allclose(kept, [[0.5, 0, 0.5, 0, 0.9], [0, 0, 0.1, 0, 0]])
    assert nearest(values, ItemKnnSettings(9)).nnz == 6


def test_unknown_users_are_scored_by_their_ratings() -> None:
    train, _ = tastes()
    model = item_knn(train, ItemKnnSettings())
    assert torch.equal(model.scores(strangers(train)), model.scores(train))
    assert not model.scores(interactions_of({1: []}, train.num_movies)).any()


def test_without_ratings_nothing_is_similar() -> None:
    nothing = interactions_of({1: []}, 3)
    assert item_knn(nothing, ItemKnnSettings()).scores(nothing).tolist() == [[0.0, 0.0, 0.0]]
