from __future__ import annotations

from itertools import combinations
from math import log, log2

import numpy as np
import pytest

from ncf.data.interactions import Interactions
from ncf.evaluation.diversity import Catalogue, Diversity, gini

COUNTS = np.array([8, 4, 2, 3, 0])
"""Training ratings of five movies, by eight users."""
GENRES = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]], dtype=np.bool_)
CATALOGUE = Catalogue(COUNTS, 8, GENRES)


def of(ranked: list[list[int]]) -> Diversity:
    found = Diversity.of(np.array(ranked), CATALOGUE)
    assert found is not None
    return found


def test_two_users_by_hand() -> None:
    found = of([[0, 1, 2], [0, 4, -1]])

    # Movies 0, 1, 2 and 4 of five; recommended 2, 1, 1, 0 and 1 times.
    assert found.coverage == pytest.approx(4 / 5)
    # Ascending 0, 1, 1, 1, 2 with weights -4, -2, 0, 2, 4: 8 / (4 x 5).
    assert found.gini == pytest.approx(8 / 20)
    # Training ratings of the recommendations: 8, 4, 2, 8 and 0.
    assert found.log_popularity == pytest.approx((2 * log(9) + log(5) + log(3) + log(1)) / 5)
    # Shares 1, 1/2, 1/4, 1, and 1/8 for the movie that nobody has rated.
    assert found.novelty == pytest.approx((0 + 1 + 2 + 0 + 3) / 5)
    # First user: {a, b} and {a} 1/2, {a, b} and {b, c} 2/3, {a} and {b, c} 1. Second: {a, b} and
    # none, 1.
    assert found.genre_distance == pytest.approx(((1 / 2 + 2 / 3 + 1) / 3 + 1) / 2)
    # Movies 2 and 4.
    assert found.rare == pytest.approx(2 / 5)


def test_two_movies_without_genres_have_no_distance() -> None:
    assert of([[3, 4]]).genre_distance == 0
    assert of([[3, 4, 1]]).genre_distance == pytest.approx(2 / 3)


def test_users_with_one_recommendation_have_no_distance_to_average() -> None:
    assert of([[0, -1], [0, 1]]).genre_distance == pytest.approx(1 / 2)
    assert of([[0, -1]]).genre_distance is None


def test_all_movies_equally_often_is_no_inequality() -> None:
    found = of([[0, 1], [2, 3], [4, -1]])
    assert found.coverage == 1
    assert found.gini == pytest.approx(0)


def test_one_movie_for_everybody_is_complete_inequality() -> None:
    found = of([[2], [2], [2]])
    assert (found.coverage, found.gini, found.rare) == (1 / 5, 1, 1)


def test_no_recommendations_have_no_figures() -> None:
    assert Diversity.of(np.array([[-1, -1]]), CATALOGUE) is None
    assert Diversity.of(np.empty((0, 3), np.int64), CATALOGUE) is None


def test_the_gini_index_is_half_the_relative_mean_difference() -> None:
    """Over pairs of different movies, which makes 1 its maximum."""
    amounts = np.random.default_rng(42).integers(0, 50, 30)
    differences = [abs(int(one) - int(other)) for one, other in combinations(amounts, 2)]
    assert gini(amounts) == pytest.approx(np.mean(differences) / (2 * amounts.mean()))
    assert gini(np.array([7])) == 0


def test_random_rankings_agree_with_loops_over_users() -> None:
    generator = np.random.default_rng(42)
    genres = generator.random((40, 6)) < 0.3
    counts = generator.integers(0, 30, 40)
    ranked = np.stack([generator.permutation(40)[:10] for _ in range(20)])
    ranked[3, 4:] = -1

    found = Diversity.of(ranked, Catalogue(counts, 30, genres))

    assert found is not None
    distances = []
    for row in ranked:
        sets = [set(np.flatnonzero(genres[movie])) for movie in row if movie >= 0]
        of_pairs = [1 - len(a & b) / len(a | b) if a | b else 0 for a, b in combinations(sets, 2)]
        distances.append(np.mean(of_pairs))
    assert found.genre_distance == pytest.approx(np.mean(distances))
    movies = [int(movie) for row in ranked for movie in row if movie >= 0]
    assert found.coverage == len(set(movies)) / 40
    assert found.novelty == pytest.approx(np.mean([-log2(max(counts[m], 1) / 30) for m in movies]))


def test_the_catalogue_counts_training_ratings_and_users() -> None:
    train = Interactions(
        users=np.array([4, 6, 9]),
        starts=np.array([0, 2, 2, 3]),
        movies=np.array([1, 3, 3], np.int32),
        ratings=np.ones(3, np.float32),
        times=np.arange(3),
        num_movies=5,
    )
    found = Catalogue.of(train, GENRES)
    assert found.train_counts.tolist() == [0, 1, 0, 2, 0]
    assert found.num_users == 2  # user 6 has no rating
    assert found.genres is GENRES
