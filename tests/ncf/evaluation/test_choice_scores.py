from __future__ import annotations

import json
from math import log2

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from ncf.data.interactions import Interactions
from ncf.evaluation.choice_scores import (
    ChoiceScores,
    MeanScores,
    MovieSlice,
    Relevance,
    UserScores,
    UserSlice,
)
from ncf.evaluation.diversity import Catalogue, Diversity
from ncf.evaluation.holdout import Holdout
from ncf.evaluation.ranking_metrics import RankingMetric

Integers = npt.NDArray[np.int64]

NUM_MOVIES = 130
USERS = [3, 5, 7, 8]


def interactions(rows: list[tuple[int, int, float]], num_movies: int = NUM_MOVIES) -> Interactions:
    """From user, movie and stars."""
    users, movies, stars = zip(*rows, strict=True)
    return Interactions.of(
        np.array(users),
        np.array(movies, np.int32),
        np.array(stars, np.float32),
        np.zeros(len(rows), np.int64),
        num_movies,
    )


@pytest.fixture
def holdout() -> Holdout:
    """User 3 has 19 known ratings, user 5 has 20, user 7 has 99 and user 8 has 100."""
    counts = dict(zip(USERS, (19, 20, 99, 100), strict=True))
    known = [(user, 20 + number, 3.0) for user in USERS for number in range(counts[user])]
    held_out = [
        *[(3, 0, 5.0), (3, 129, 4.0), (3, 1, 3.5)],
        *[(5, 2, 1.0)],
        *[(7, 3, 4.0), (7, 0, 4.5)],
        *[(8, 12, 4.0), (8, 5, 2.0)],
    ]
    return Holdout(interactions(known), interactions(held_out))


@pytest.fixture
def ranked() -> Integers:
    """Twelve movies for each user; what is not said here is relevant to nobody."""
    rows = np.full((4, 12), 19)
    rows[0, [0, 1, 2]] = 1, 0, 17  # user 3: held-out movies 1 and 0, but not 129
    rows[1] = -1  # user 5: nothing, and -1 is not movie 129 of the user before
    rows[2, [3, 10]] = 0, 3  # user 7: movie 0 at rank 4, movie 3 at rank 11
    rows[3, [0, 9]] = 0, 5  # user 8: movie 0 is relevant to others alone, movie 5 at rank 10
    return rows


def test_liked_movies_are_those_with_four_stars_or_more(holdout: Holdout, ranked: Integers) -> None:
    metrics = [RankingMetric("recall", 10), RankingMetric("mrr", 12)]

    found = UserScores.of(ranked, holdout, "liked", metrics)

    assert found.users.tolist() == USERS
    assert found.num_relevant.tolist() == [2, 0, 2, 1]
    assert list(found.values) == ["recall@10", "mrr@12"]
    np.testing.assert_array_equal(found.values["recall@10"], [1 / 2, np.nan, 1 / 2, 0])
    np.testing.assert_array_equal(found.values["mrr@12"], [1 / 2, np.nan, 1 / 4, 0])
    assert found.num_scored == 3
    assert found.mean("recall@10") == pytest.approx(1 / 3)


def test_all_held_out_movies_are_relevant_with_any_stars(
    holdout: Holdout, ranked: Integers
) -> None:
    metrics = [RankingMetric("recall", 10), RankingMetric("recall", 12), RankingMetric("mrr", 12)]

    found = UserScores.of(ranked, holdout, "all", metrics)

    assert found.num_relevant.tolist() == [3, 1, 2, 2]
    np.testing.assert_array_equal(found.values["recall@10"], [2 / 3, 0, 1 / 2, 1 / 2])
    np.testing.assert_array_equal(found.values["recall@12"], [2 / 3, 0, 1, 1 / 2])
    np.testing.assert_array_equal(found.values["mrr@12"], [1, 0, 1 / 4, 1 / 10])
    assert found.num_scored == 4
    assert found.mean("mrr@12") == pytest.approx((1 + 1 / 4 + 1 / 10) / 4)


def test_a_movie_that_is_held_out_twice_is_relevant_once(ranked: Integers) -> None:
    holdout = Holdout(
        interactions([(1, 9, 3.0)]), interactions([(1, 1, 4.0), (1, 1, 5.0), (1, 3, 5.0)])
    )
    found = UserScores.of(ranked[:1], holdout, "liked", [RankingMetric("recall", 2)])
    assert found.num_relevant.tolist() == [2]
    assert found.values["recall@2"].tolist() == [1 / 2]


@pytest.fixture
def catalogue() -> Catalogue:
    """Movies 0, 1, 2, ... have 2, 3, 9, 10, 50, 49, and then 1 training ratings."""
    counts = np.ones(NUM_MOVIES, np.int64)
    counts[:6] = 2, 3, 9, 10, 50, 49
    return Catalogue(counts, 64, np.zeros((NUM_MOVIES, 2), np.bool_))


@pytest.fixture
def scores(holdout: Holdout, ranked: Integers, catalogue: Catalogue) -> ChoiceScores:
    return ChoiceScores.of(ranked, holdout, catalogue, [RankingMetric("hit_rate", 10)])


def test_means_are_over_users_with_a_relevant_movie(scores: ChoiceScores) -> None:
    assert scores.liked is not None
    assert scores.all is not None
    assert (scores.liked.num_users, scores.liked.num_ratings) == (3, 5)
    assert scores.liked.metrics == {"hit_rate@10": pytest.approx(2 / 3)}
    assert (scores.all.num_users, scores.all.num_ratings) == (4, 8)
    assert scores.all.metrics == {"hit_rate@10": pytest.approx(3 / 4)}


def groups(slices: tuple[UserSlice, ...]) -> list[tuple[object, ...]]:
    return [(part.label, part.num_users, part.ndcg) for part in slices]


def test_users_are_divided_by_known_ratings(scores: ChoiceScores) -> None:
    gains = [1 / log2(1 + rank) for rank in range(1, 11)]
    assert scores.liked is not None
    assert scores.all is not None
    # User 3 has one of two at rank 2, user 7 one of two at rank 4, user 8 none of one.
    assert groups(scores.liked.by_activity) == [
        ("fewer than 20", 1, pytest.approx(gains[1] / sum(gains[:2]))),
        ("20 to 99", 1, pytest.approx(gains[3] / sum(gains[:2]))),
        ("100 or more", 1, 0.0),
    ]
    # User 3 has two of three at ranks 1 and 2, user 5 nothing, user 8 one of two at rank 10.
    assert groups(scores.all.by_activity) == [
        ("fewer than 20", 1, pytest.approx(sum(gains[:2]) / sum(gains[:3]))),
        ("20 to 99", 2, pytest.approx(gains[3] / sum(gains[:2]) / 2)),
        ("100 or more", 1, pytest.approx(gains[9] / sum(gains[:2]))),
    ]


def test_held_out_ratings_are_divided_by_the_movies_training_ratings(scores: ChoiceScores) -> None:
    assert scores.liked is not None
    assert scores.all is not None
    # Movie 0 of users 3 and 7 is found, 129 of 3 and 12 of 8 are not; movie 3 of 7 is at rank 11.
    assert scores.liked.by_popularity == (
        MovieSlice("at most 2", 4, 1 / 2),
        MovieSlice("10 to 49", 1, 0.0),
    )
    # Also movie 1 of user 3, found, 2 of user 5, not, and 5 of user 8, found.
    assert scores.all.by_popularity == (
        MovieSlice("at most 2", 4, 1 / 2),
        MovieSlice("3 to 9", 2, 1 / 2),
        MovieSlice("10 to 49", 2, 1 / 2),
    )


def test_diversity_is_of_the_first_ten(
    scores: ChoiceScores, ranked: Integers, catalogue: Catalogue
) -> None:
    assert scores.diversity == Diversity.of(ranked[:, :10], catalogue)
    assert scores.diversity is not None
    assert scores.diversity.coverage == 5 / NUM_MOVIES  # 0, 1, 5, 17 and 19; 3 is at rank 11


def test_by_default_there_are_all_metrics(holdout: Holdout, catalogue: Catalogue) -> None:
    rows = np.tile(np.arange(20), (4, 1))
    scores = ChoiceScores.of(rows, holdout, catalogue)
    assert scores.liked is not None
    assert len(scores.liked.metrics) == 15
    # All of the first twenty movies are ranked in their order: 0; 0 and 3; 12.
    assert scores.liked.metrics["recall@5"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert scores.liked.metrics["recall@20"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert scores.liked.metrics["mrr@20"] == pytest.approx((1 + 1 + 1 / 13) / 3)


def test_no_liked_movies_and_no_rankings_have_no_figures(catalogue: Catalogue) -> None:
    holdout = Holdout(interactions([(1, 9, 3.0)]), interactions([(1, 4, 3.0)]))

    found = ChoiceScores.of(np.full((1, 20), -1), holdout, catalogue)

    assert found.liked is None
    assert found.diversity is None
    assert found.all is not None
    assert set(found.all.metrics.values()) == {0.0}
    assert found.all.by_popularity == (MovieSlice("50 or more", 1, 0.0),)
    assert ChoiceScores.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_scores_survive_json(scores: ChoiceScores) -> None:
    text = json.dumps(scores.to_json(), allow_nan=False)
    found = ChoiceScores.from_json(json.loads(text))
    assert found == scores
    assert isinstance(found.liked, MeanScores)
    assert json.loads(text)["liked"]["metrics"] == found.liked.metrics


def test_damaged_json_is_refused(scores: ChoiceScores) -> None:
    with pytest.raises(ValidationError):
        ChoiceScores.from_json(scores.to_json() | {"liked": {"num_users": 1}})


def test_rankings_of_other_users_are_refused(
    holdout: Holdout, ranked: Integers, catalogue: Catalogue
) -> None:
    with pytest.raises(ValueError, match="found 3 rankings, expected one for each of the 4 users"):
        ChoiceScores.of(ranked[:3], holdout, catalogue)


def test_rankings_that_are_too_short_are_refused(
    holdout: Holdout, ranked: Integers, catalogue: Catalogue
) -> None:
    with pytest.raises(ValueError, match="9 movies, but ndcg@10 needs 10"):
        ChoiceScores.of(ranked[:, :9], holdout, catalogue, [RankingMetric("recall", 5)])


@pytest.mark.parametrize("relevance", ["liked", "all"])
def test_random_rankings_agree_with_loops_over_users(relevance: Relevance) -> None:
    generator = np.random.default_rng(42)
    holdout = random_holdout(generator, num_users=50, num_movies=30, each=6)
    ranked = np.stack([generator.permutation(30)[:10] for _ in range(50)])
    ranked[::4, 5:] = -1

    found = UserScores.of(ranked, holdout, relevance, [RankingMetric("map", 10)])

    least = 4.0 if relevance == "liked" else 0.0
    expected = []
    for row, start, stop in zip(
        ranked, holdout.held_out.starts, holdout.held_out.starts[1:], strict=False
    ):
        stars = holdout.held_out.ratings[start:stop]
        relevant = set(holdout.held_out.movies[start:stop][stars >= least].tolist())
        precisions = [
            len(relevant & set(row[: rank + 1].tolist())) / (rank + 1)
            for rank in range(10)
            if int(row[rank]) in relevant
        ]
        expected.append(sum(precisions) / len(relevant) if relevant else np.nan)
    np.testing.assert_allclose(found.values["map@10"], expected)


def random_holdout(
    generator: np.random.Generator, num_users: int, num_movies: int, each: int
) -> Holdout:
    """One known rating and ``each`` held-out ratings a user, the latter of different movies."""
    users = np.arange(num_users)
    first = generator.integers(0, num_movies // each, (num_users, each))
    movies = first + np.arange(each) * (num_movies // each)
    stars = generator.integers(1, 6, movies.shape).astype(np.float32)
    zeros = np.zeros(movies.size, np.int64)
    return Holdout(
        interactions([(user, 0, 3.0) for user in range(num_users)], num_movies),
        Interactions.of(
            np.repeat(users, each),
            movies.ravel().astype(np.int32),
            stars.ravel(),
            zeros,
            num_movies,
        ),
    )
