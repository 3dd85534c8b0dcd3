from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    ndcg_score,
)

from ncf.evaluation.ranking_metrics import (
    CUTOFFS,
    DEFAULT_METRICS,
    RankingMetric,
    average_precision,
    hit,
    ndcg,
    recall,
    reciprocal_rank,
)
from ncf.registry import RANKING_METRICS

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

HITS = np.array(
    [
        [0, 1, 0, 1],  # both of the user's two
        [1, 0, 0, 0],  # one of six, more than there are ranks
        [0, 0, 0, 0],  # none of three
        [0, 0, 0, 0],  # there are none
        [1, 1, 1, 1],  # four of nine
    ],
    dtype=np.bool_,
)
NUM_RELEVANT = np.array([2, 6, 3, 0, 9])

GAINS = [1 / math.log2(1 + rank) for rank in (1, 2, 3, 4)]  # 1, 0.631, 0.5, 0.431
BY_HAND = {
    "ndcg": [(GAINS[1] + GAINS[3]) / (GAINS[0] + GAINS[1]), 1 / sum(GAINS), 0, math.nan, 1],
    "recall": [1, 1 / 6, 0, math.nan, 4 / 9],
    # Precision at the hits: 1/2 and 2/4; 1; none; ...; 1, 1, 1 and 1. Divided by 2, 4, 3 and 4.
    "map": [1 / 2, 1 / 4, 0, math.nan, 1],
    "hit_rate": [1, 1, 0, math.nan, 1],
    "mrr": [1 / 2, 1, 0, math.nan, 1],
}


@pytest.mark.parametrize("name", list(RANKING_METRICS))
def test_every_metric_by_hand(name: str) -> None:
    found = RankingMetric(name, 4).of(HITS, NUM_RELEVANT)

    assert found.dtype == np.float64
    np.testing.assert_allclose(found, BY_HAND[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Of the first two ranks, one hit at rank 2, one at rank 1, none, and two.
        ("ndcg", [GAINS[1] / (GAINS[0] + GAINS[1]), 1 / (GAINS[0] + GAINS[1]), 0, math.nan, 1]),
        ("recall", [1 / 2, 1 / 6, 0, math.nan, 2 / 9]),
        ("map", [1 / 4, 1 / 2, 0, math.nan, 1]),
        ("hit_rate", [1, 1, 0, math.nan, 1]),
        ("mrr", [1 / 2, 1, 0, math.nan, 1]),
    ],
)
def test_only_the_ranks_up_to_the_cut_off_count(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(RankingMetric(name, 2).of(HITS, NUM_RELEVANT), expected, rtol=1e-12)


def full_rankings(num_relevant: int | None = None) -> tuple[Bools, npt.NDArray[np.float64], Bools]:
    """``[40, 15]`` relevance and distinct scores of 15 movies, and the hits in order of scores."""
    generator = np.random.default_rng(42)
    scores = np.stack([generator.permutation(15) for _ in range(40)]).astype(np.float64)
    sizes = generator.integers(1, 15, 40) if num_relevant is None else np.full(40, num_relevant)
    relevance = np.stack([generator.permutation(15) < size for size in sizes])
    return relevance, scores, np.take_along_axis(relevance, np.argsort(-scores, axis=1), axis=1)


@pytest.mark.parametrize("at", [1, 3, 10, 15])
def test_ndcg_is_that_of_scikit_learn(at: int) -> None:
    relevance, scores, hits = full_rankings()

    found = ndcg(hits[:, :at], relevance.sum(axis=1))

    assert found.mean() == pytest.approx(ndcg_score(relevance, scores, k=at), rel=1e-12)


def test_average_precision_of_the_whole_ranking_is_that_of_scikit_learn() -> None:
    relevance, scores, hits = full_rankings()

    np.testing.assert_allclose(
        average_precision(hits, relevance.sum(axis=1)),
        [average_precision_score(*user) for user in zip(relevance, scores, strict=True)],
        rtol=1e-12,
    )


def test_reciprocal_rank_of_one_relevant_movie_is_that_of_scikit_learn() -> None:
    relevance, scores, hits = full_rankings(num_relevant=1)

    found = reciprocal_rank(hits, relevance.sum(axis=1))

    expected = label_ranking_average_precision_score(relevance, scores)
    assert found.mean() == pytest.approx(expected, rel=1e-12)


def test_recall_and_hits_count_the_relevant_movies_above_the_cut_off() -> None:
    relevance, scores, hits = full_rankings()
    above = [
        {int(movie) for movie in np.argsort(-of_user)[:4]} & set(np.flatnonzero(relevant).tolist())
        for of_user, relevant in zip(scores, relevance, strict=True)
    ]
    sizes = relevance.sum(axis=1)

    assert recall(hits[:, :4], sizes).tolist() == pytest.approx(
        [len(found) / size for found, size in zip(above, sizes, strict=True)]
    )
    assert hit(hits[:, :4], sizes).tolist() == [float(bool(found)) for found in above]


def test_a_metric_is_written_with_its_cut_off() -> None:
    assert RankingMetric.parse("hit_rate@20") == RankingMetric("hit_rate", 20)
    assert str(RankingMetric("ndcg", 10)) == "ndcg@10"
    assert [RankingMetric.parse(str(metric)) for metric in DEFAULT_METRICS] == list(DEFAULT_METRICS)


@pytest.mark.parametrize(
    "text",
    [
        *("ndgc@10", "NDCG@5", "@5", "", "ndcg", "ndcg@"),
        *("ndcg@0", "ndcg@-1", "ndcg@1.5", "ndcg@ 5", "ndcg@5@5", "ndcg@5\n", "ndcg@٥"),
    ],
)
def test_anything_else_is_refused_with_the_names_that_exist(text: str) -> None:
    with pytest.raises(ValueError, match="is not a metric of rankings") as raised:
        RankingMetric.parse(text)
    message = str(raised.value)
    assert repr(text) in message
    assert "ndcg, recall, map, hit_rate, mrr" in message
    assert "positive whole number" in message


def test_the_default_metrics_are_all_names_at_all_cut_offs() -> None:
    assert CUTOFFS == (5, 10, 20)
    assert {str(metric) for metric in DEFAULT_METRICS} == {
        f"{name}@{at}" for name in RANKING_METRICS for at in (5, 10, 20)
    }
    assert len(DEFAULT_METRICS) == 15


def test_rankings_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="4 movies, but recall@5 needs 5"):
        RankingMetric("recall", 5).of(HITS, NUM_RELEVANT)
