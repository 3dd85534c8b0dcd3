from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import ndcg_score

from ncf.config import ExperimentConfig, ModelConfig
from ncf.data.preprocessor import Preprocessor
from ncf.evaluation.ranking import RankingScores, SeenMovies
from ncf.inference import top_k
from ncf.inference.checkpoint import Checkpoint
from ncf.inference.top_k import score_rankings, top_movies
from ncf.models.conditioned import ConditionedModel
from ncf.models.ncf import NCF

NOTHING_SEEN = SeenMovies.of(np.array([], np.int32), np.array([], np.int32), 3)


def drawn_checkpoint(preprocessor: Preprocessor) -> Checkpoint:
    """A network with random weights."""
    torch.manual_seed(0)
    config = ModelConfig(embedding_dim=4, hidden_dims=(8,), embedding_std=1.0)
    model = ConditionedModel(NCF(config, preprocessor)).eval()
    return Checkpoint(model, ExperimentConfig(model=config), preprocessor, {})


@pytest.fixture
def scored(preprocessor: Preprocessor) -> Callable[[list[float]], Checkpoint]:
    """``scored([a, b, c, d])`` predicts just these stars for the four movies."""

    def make(scores: list[float]) -> Checkpoint:
        config = ModelConfig(inputs=("movie",), embedding_dim=1, hidden_dims=())
        known = replace(
            preprocessor,
            movies=replace(preprocessor.movies, embedding_index=np.array([1, 2, 3, 4])),
        )
        network = NCF(config, known)
        with torch.no_grad():
            network.get_parameter("branches.movie.table.weight")[1:, 0] = torch.tensor(scores)
            network.output.weight.fill_(1)
            network.output.bias.fill_(0)
        model = ConditionedModel(network).eval()
        return Checkpoint(model, ExperimentConfig(model=config), known, {})

    return make


def brute_force(
    checkpoint: Checkpoint, user: int, seen: set[int], top_n: int
) -> list[tuple[int, float]]:
    """One pair at a time, sorted by Python."""
    pairs = []
    for movie in range(len(checkpoint.preprocessor.movies)):
        with torch.no_grad():
            rows = torch.tensor([user]), torch.tensor([movie])
            score = checkpoint.model.expected_ratings(*rows).item()
        pairs.append((movie, score))
    unseen = [(movie, score) for movie, score in pairs if movie not in seen]
    return sorted(unseen, key=lambda pair: (-pair[1], pair[0]))[:top_n]


@pytest.mark.parametrize("pairs_at_once", [1, 80, 200, 100_000])
def test_the_ranking_equals_brute_force_at_any_block_size(
    pairs_at_once: int, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_k, "_PAIRS_AT_ONCE", pairs_at_once)
    checkpoint = drawn_checkpoint(world.preprocessor)
    rated_by, rated = world.train.users.numpy()[:900], world.train.movies.numpy()[:900]
    seen = SeenMovies.of(rated_by, rated, world.preprocessor.num_users)
    users = np.array([7, 1, 0, 120, 3])  # in no order; 0 is unknown
    found = top_movies(checkpoint, users, seen, 10)
    assert found.movies.shape == found.stars.shape == (5, 10)
    lowest, highest = world.preprocessor.rating_min, world.preprocessor.rating_max
    for row, user in enumerate(users):
        expected = brute_force(checkpoint, user, set(rated[rated_by == user]), 10)
        assert found.movies[row].tolist() == [movie for movie, _ in expected]
        stars = np.clip([score for _, score in expected], lowest, highest)
        np.testing.assert_allclose(found.stars[row], stars, rtol=1e-5)
        assert not set(found.movies[row]) & set(rated[rated_by == user])


def test_rankings_differ_between_users(world: Any) -> None:
    found = top_movies(drawn_checkpoint(world.preprocessor), np.arange(1, 121), seen_none(120), 5)
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


def test_rankings_are_padded_after_the_last_unseen_movie(
    scored: Callable[[list[float]], Checkpoint],
) -> None:
    seen = SeenMovies.of(
        np.array([1, 1, 1, 2, 2, 2, 2], np.int32), np.array([0, 1, 3, 0, 1, 2, 3], np.int32), 3
    )
    found = top_movies(scored([1.0, 4.0, 2.0, 3.0]), np.array([1, 2]), seen, 3)
    assert found.movies.tolist() == [[2, -1, -1], [-1, -1, -1]]
    np.testing.assert_array_equal(found.stars, [[2, np.nan, np.nan], [np.nan] * 3])


def test_rankings_are_no_longer_than_the_catalogue(
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


def test_no_users_get_an_empty_ranking(scored: Callable[[list[float]], Checkpoint]) -> None:
    no_users: npt.NDArray[np.int64] = np.array([], np.int64)
    found = top_movies(scored([1.0, 2.0, 3.0, 4.0]), no_users, NOTHING_SEEN, 2)
    assert found.movies.shape == found.stars.shape == (0, 2)


def test_seen_movies_are_those_of_each_user_and_of_no_other() -> None:
    users = np.array([3, 1, 3, 0, 1, 3], np.int32)
    movies = np.array([5, 4, 9, 7, 2, 1], np.int32)
    seen = SeenMovies.of(users, movies, 4)
    assert [sorted(seen.by(user)) for user in range(5)] == [[7], [2, 4], [], [1, 5, 9], []]


def of_rows(rows: Any, users: int) -> SeenMovies:
    return SeenMovies.of(rows.users.numpy(), rows.movies.numpy(), users)


def test_the_scores_of_one_ranking_by_hand() -> None:
    """Relevant are 7, 3 and 99; 3 is second and 7 is fourth of ten, 99 is not there."""
    relevant = SeenMovies.of(np.array([2, 2, 2, 1]), np.array([7, 3, 99, 5]), 2)
    ranked = np.array([[0, 3, 1, 7, 2, 4, 5, 6, 8, -1]])
    found = RankingScores.of(ranked, np.array([2]), relevant)
    best = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert found.ndcg == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / best)
    assert found.recall == pytest.approx(2 / 3)
    assert found.map == pytest.approx((1 / 2 + 2 / 4) / 3)


def test_more_relevant_movies_than_places_can_still_be_ranked_perfectly() -> None:
    relevant = SeenMovies.of(np.ones(20, np.int32), np.arange(20, dtype=np.int32), 1)
    found = RankingScores.of(np.arange(10)[None], np.array([1]), relevant)
    assert (found.ndcg, found.recall, found.map) == pytest.approx((1, 0.5, 1))


def test_rankings_are_scored_as_by_scikit_learn(world: Any) -> None:
    """Of all movies that a user has not rated; users without a relevant one are left out."""
    checkpoint = drawn_checkpoint(world.preprocessor)
    train = world.train[:2500]
    test = world.test[torch.nonzero(world.test.ratings >= 3.8)[:, 0]]
    found = score_rankings(checkpoint, of_rows(train, 120), of_rows(test, 120))

    expected: dict[str, list[tuple[float, float, float]]] = {"model": [], "popularity": []}
    users = sorted(set(test.users.tolist()))
    for user in users:
        rated = set(train.movies[train.users == user].tolist())
        unseen = np.array([movie for movie in range(80) if movie not in rated])
        relevant = np.isin(unseen, test.movies[test.users == user].numpy())
        with torch.no_grad():
            stars = checkpoint.model.expected_ratings(
                torch.full((len(unseen),), user), torch.from_numpy(unseen)
            ).numpy()
        # Of movies with as many ratings, the first in the table comes first.
        counts = world.preprocessor.movies.train_counts[unseen] - unseen / 1000
        for name, scores in (("model", stars), ("popularity", counts)):
            hits = relevant[np.argsort(-scores)[:10]]
            precisions = [hits[: k + 1].mean() for k in range(10) if hits[k]]
            expected[name].append(
                (
                    ndcg_score(relevant[None], scores[None], k=10),
                    hits.sum() / relevant.sum(),
                    sum(precisions) / min(10, relevant.sum()),
                )
            )
    assert 20 < len(users) < 120
    assert found["num_users"] == found["num_users_ranked"] == len(users)
    for name, scores in expected.items():
        ndcg, recall, precision = np.mean(scores, axis=0)
        assert found[name] == pytest.approx({"ndcg": ndcg, "recall": recall, "map": precision})
    assert found["model"] != found["popularity"]


def test_users_are_drawn_where_there_are_too_many_pairs(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_k, "_PAIRS_TO_SCORE", 7 * 80 + 79)
    checkpoint = drawn_checkpoint(world.preprocessor)
    found = score_rankings(checkpoint, seen_none(120), of_rows(world.test, 120))
    assert (found["num_users"], found["num_users_ranked"]) == (120, 7)


def test_without_a_relevant_movie_there_is_no_score(world: Any) -> None:
    """The unknown user, index 0, stands for many users."""
    of_unknown = SeenMovies.of(np.array([0], np.int32), np.array([3], np.int32), 120)
    found = score_rankings(drawn_checkpoint(world.preprocessor), seen_none(120), of_unknown)
    assert (found["num_users"], found["model"], found["popularity"]) == (0, None, None)
