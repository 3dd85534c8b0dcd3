from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ncf.data.interactions import Interactions
from ncf.evaluation.full_ranking import rank, top_unseen
from ncf.models.choice.base import ChoiceModel

Bools = npt.NDArray[np.bool_]
NAN, INF = float("nan"), float("inf")


def known_of(movies: Sequence[Sequence[int]], num_movies: int) -> Interactions:
    """Ratings of users 0, 1, ... of these movies; users may have none."""
    counts = [len(of_user) for of_user in movies]
    flat = np.array([movie for of_user in movies for movie in of_user], np.int32)
    return Interactions(
        users=np.arange(len(movies)),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        movies=flat,
        ratings=np.full(len(flat), 3.0, np.float32),
        times=np.arange(len(flat)),
        num_movies=num_movies,
    )


def top(
    scores: list[list[float]],
    known: Sequence[Sequence[int]],
    at: int,
    allowed: list[bool] | None = None,
) -> list[list[int]]:
    may_rank = None if allowed is None else np.array(allowed)
    found = top_unseen(
        torch.tensor(scores, dtype=torch.float32), known_of(known, len(scores[0])), at, may_rank
    )
    assert found.dtype == np.int64
    return [[int(movie) for movie in row] for row in found]


def test_the_highest_scores_of_movies_that_are_not_known_are_ranked() -> None:
    scores = [[0.1, 0.9, 0.5, 0.7], [4.0, -3.0, -2.0, -1.0]]
    assert top(scores, [[1], [0, 3]], 2) == [[3, 2], [2, 1]]


def test_only_allowed_movies_are_ranked() -> None:
    assert top([[0.1, 0.9, 0.5, 0.7]], [[1]], 2, [True, True, True, False]) == [[2, 0]]


def test_of_equal_scores_the_first_movie_comes_first() -> None:
    """Within the ranking, and where only some of the equal ones are in it."""
    assert top([[2, 5, 2, 5, 1, 5]], [[]], 4) == [[1, 3, 5, 0]]
    assert top([[2, 5, 2, 5, 2, 5]], [[1]], 3) == [[3, 5, 0]]
    assert top([[1, 1, 1, 1, 1, 1]], [[0, 2]], 3) == [[1, 3, 4]]
    assert top([[1, 0, 0.0, -0.0, 0.0]], [[]], 3) == [[0, 1, 2]]


def test_equal_scores_of_a_large_table_are_in_its_order() -> None:
    """``topk`` alone returns others of so many."""
    num_movies = 20_000
    scores = torch.zeros(2, num_movies)
    scores[1, ::7] = 1.0

    found = top_unseen(scores, known_of([[0, 2], [7]], num_movies), 5)

    assert found.tolist() == [[1, 3, 4, 5, 6], [0, 14, 21, 28, 35]]


def test_ranks_after_the_last_candidate_are_empty() -> None:
    assert top([[3, 1, 2]], [[0]], 3) == [[2, 1, -1]]
    assert top([[3, 1, 2]], [[0]], 6) == [[2, 1, -1, -1, -1, -1]]
    assert top([[3, 1, 2]], [[]], 3) == [[0, 2, 1]]
    assert top([[3, 1, 2]], [[0, 1, 2]], 2) == [[-1, -1]]
    assert top([[3, 1, 2]], [[0]], 2, [True, False, False]) == [[-1, -1]]


def test_movies_without_a_score_are_not_ranked() -> None:
    assert top([[NAN, 1, -INF, 2, NAN]], [[]], 4) == [[3, 1, -1, -1]]
    assert top([[NAN, NAN, NAN]], [[]], 2) == [[-1, -1]]
    assert top([[1, INF, 2, NAN]], [[]], 2) == [[1, 2]]
    assert top([[INF, 1, INF, INF]], [[]], 2) == [[0, 2]]
    assert top([[torch.finfo(torch.float32).max, INF]], [[]], 2) == [[1, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_scores_are_left_as_they_are(dtype: torch.dtype) -> None:
    scores = torch.tensor([[1.0, NAN, 2.0, 2.0]], dtype=dtype, requires_grad=True)
    before = scores.detach().clone()

    found = top_unseen(scores, known_of([[0]], 4), 1, np.array([True, True, True, True]))

    assert found.tolist() == [[2]]
    assert torch.equal(scores.detach().nan_to_num(-1), before.nan_to_num(-1))


def slow(
    scores: npt.NDArray[np.float32], known: Interactions, at: int, allowed: Bools
) -> list[list[int]]:
    """Sorts all movies of each user."""
    ranked = []
    for user, of_user in enumerate(scores.astype(np.float64)):
        seen = known.movies[known.starts[user] : known.starts[user + 1]]
        order = np.lexsort((np.arange(len(of_user)), -of_user))
        wanted = [int(m) for m in order if allowed[m] and m not in seen and of_user[m] > -INF]
        ranked.append((wanted + [-1] * at)[:at])
    return ranked


@pytest.mark.parametrize("levels", [2, 7, 50, 10_000])
@pytest.mark.parametrize("at", [1, 5, 60])
def test_random_scores_are_ranked_as_by_sorting(levels: int, at: int) -> None:
    """Few levels give many equal scores; with 60 ranks some users have fewer candidates."""
    generator = np.random.default_rng(42)
    scores = generator.integers(0, levels, (30, 80)).astype(np.float32)
    scores[generator.random((30, 80)) < 0.1] = np.nan
    scores[generator.random((30, 80)) < 0.1] = -np.inf
    known = known_of(
        [
            generator.choice(80, size, replace=False).tolist()
            for size in generator.integers(0, 81, 30)
        ],
        80,
    )
    allowed = generator.random(80) < 0.8

    found = top_unseen(torch.from_numpy(scores), known, at, allowed)

    assert found.tolist() == slow(scores, known, at, allowed)


def test_scores_of_other_users_or_movies_are_refused() -> None:
    known = known_of([[0], [1]], 3)
    for shape in ((1, 3), (2, 4)):
        with pytest.raises(ValueError, match=r"expected \[2, 3\]"):
            top_unseen(torch.zeros(shape), known, 2)


class ByLastMovie(ChoiceModel):
    """Prefers movies near the one that the user rated last; remembers how many users it scored."""

    def __init__(self) -> None:
        self.blocks: list[int] = []

    def scores(self, known: Interactions) -> torch.Tensor:
        self.blocks.append(len(known))
        last = torch.from_numpy(known.movies[known.starts[1:] - 1])
        distance = (torch.arange(known.num_movies) - last[:, None]).abs()
        return -distance.float().requires_grad_()


@pytest.mark.parametrize(
    ("cells", "blocks"), [(8_000_000, [5]), (12, [2, 2, 1]), (11, [1] * 5), (1, [1] * 5)]
)
def test_blocks_have_as_many_scores_as_allowed_and_change_nothing(
    cells: int, blocks: list[int]
) -> None:
    model = ByLastMovie()
    known = known_of([[0, 3], [1], [5], [4, 3, 2], [2]], 6)

    found = rank(model, known, 3, cells=cells)

    assert model.blocks == blocks
    # Movies 2 and 4 are both next to 3; 0 and 2 to 1; ...; 1 and 3 to 2, but 3 is known.
    assert found.tolist() == [[2, 4, 1], [0, 2, 3], [4, 3, 2], [1, 0, 5], [1, 3, 0]]


def test_ranking_allows_only_some_movies() -> None:
    allowed = np.array([True, True, True, True, False, False])
    assert rank(ByLastMovie(), known_of([[3]], 6), 4, allowed).tolist() == [[2, 1, 0, -1]]


def test_no_users_have_no_rankings() -> None:
    assert rank(ByLastMovie(), known_of([], 6), 3).shape == (0, 3)
    assert top_unseen(torch.zeros(0, 6), known_of([], 6), 3).shape == (0, 3)
