"""Ratings by user: order, blocks, matrices, and the division into known and held-out ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ncf.data.batches import Batch
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Preprocessor
from ncf.evaluation.holdout import Holdout
from tests.ncf.prepared import write_prepared


def ratings_of(*rows: tuple[int, int, float, int], num_movies: int = 5) -> Interactions:
    """From rows of user id, movie, stars and time."""
    users, movies, stars, times = (np.array(column) for column in zip(*rows, strict=True))
    return Interactions.of(users, movies, stars, times, num_movies)


def rows_of(ratings: Interactions) -> list[tuple[int, int, float, int]]:
    columns = (ratings.users[ratings.rows], ratings.movies, ratings.ratings, ratings.times)
    return [(int(u), int(m), float(s), int(t)) for u, m, s, t in zip(*columns, strict=True)]


MIXED = ((30, 2, 4.0, 50), (10, 1, 3.0, 20), (30, 0, 5.0, 40), (10, 4, 1.0, 20), (10, 3, 2.0, 10))


def test_users_are_ascending_and_their_ratings_from_the_oldest_to_the_newest() -> None:
    found = ratings_of(*MIXED)
    assert found.users.tolist() == [10, 30]
    # Movies 1 and 4 have the same time, and keep their order.
    assert rows_of(found) == [
        (10, 3, 2.0, 10),
        (10, 1, 3.0, 20),
        (10, 4, 1.0, 20),
        (30, 0, 5.0, 40),
        (30, 2, 4.0, 50),
    ]
    assert found.counts.tolist() == [3, 2]
    assert found.last_times.tolist() == [20, 50]
    assert found.movie_counts().tolist() == [1, 1, 1, 1, 1]


def test_a_block_of_users_has_their_ratings() -> None:
    found = ratings_of(*MIXED)
    assert rows_of(found.of_users(1, 9)) == [(30, 0, 5.0, 40), (30, 2, 4.0, 50)]
    assert len(found.of_users(2, 2)) == 0


def test_users_are_selected_by_id_in_any_order() -> None:
    found = ratings_of(*MIXED).select([30, 7, 10, 99])
    assert found.users.tolist() == [30, 7, 10, 99]
    assert found.counts.tolist() == [2, 0, 3, 0]
    assert found.movies.tolist() == [0, 2, 3, 1, 4]
    assert found.last_times.tolist() == [50, 0, 20, 0]
    nothing = found.select([])
    assert len(nothing) == 0
    assert nothing.select([5]).counts.tolist() == [0]


def test_a_user_may_be_left_without_ratings() -> None:
    found = ratings_of(*MIXED)
    without = found.where(found.ratings > 3)
    assert without.counts.tolist() == [0, 2]
    assert without.last_times.tolist() == [0, 50]
    assert without.matrix().toarray().tolist() == [[0, 0, 0, 0, 0], [1, 0, 1, 0, 0]]


def test_a_matrix_has_the_values_at_the_rated_movies() -> None:
    found = ratings_of(*MIXED)
    assert found.matrix(found.ratings).toarray().tolist() == [[0, 3, 0, 2, 1], [5, 0, 4, 0, 0]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


def test_splits_are_read_together(folder: Path, preprocessor: Preprocessor) -> None:
    def batch(users: list[int], movies: list[int], times: list[int]) -> Batch:
        size = len(users)
        return Batch(
            torch.tensor(users, dtype=torch.int32),
            torch.tensor(movies, dtype=torch.int32),
            torch.full((size,), 4.0),
            torch.ones(size),
            torch.tensor(times),
        )

    splits = {"train": batch([1, 2], [0, 1], [5, 6]), "validation": batch([1], [3], [4])}
    splits["test"] = batch([1], [2], [9])
    prepared = write_prepared(folder, splits, preprocessor)
    found = Interactions.read(prepared, ["train", "validation"])
    assert rows_of(found) == [(10, 3, 4.0, 4), (10, 0, 4.0, 5), (20, 1, 4.0, 6)]
    assert found.num_movies == 4


def test_a_split_without_rows_is_empty(folder: Path, preprocessor: Preprocessor) -> None:
    row = Batch(
        torch.tensor([1], dtype=torch.int32),
        torch.tensor([0], dtype=torch.int32),
        torch.ones(1),
        torch.ones(1),
        torch.ones(1, dtype=torch.int64),
    )
    nothing = row[torch.tensor([], dtype=torch.int64)]
    splits = {"train": row, "validation": nothing, "test": row}
    found = Interactions.read(write_prepared(folder, splits, preprocessor), ["validation"])
    assert len(found) == 0
    assert found.matrix().shape == (0, 4)


# -- Known and held-out ratings --------------------------------------------------------------------


def test_users_are_scored_who_have_known_and_held_out_ratings() -> None:
    known = ratings_of((1, 0, 4.0, 1), (2, 0, 4.0, 1))
    held_out = ratings_of((2, 3, 5.0, 9), (3, 1, 5.0, 9))
    found = Holdout.of(known, held_out)
    assert rows_of(found.known) == [(2, 0, 4.0, 1)]
    assert rows_of(found.held_out) == [(2, 3, 5.0, 9)]


def test_the_oldest_held_out_ratings_of_returning_and_new_users_may_be_given() -> None:
    known = ratings_of((1, 0, 4.0, 1), (2, 0, 4.0, 1))
    held_out = ratings_of(
        (2, 3, 5.0, 9), (2, 1, 2.0, 8), (2, 4, 3.0, 10), (3, 1, 5.0, 9), (3, 2, 1.0, 7)
    )
    found = Holdout.of(known, held_out, num_given=1)
    # Of user 3 nothing was known before; user 1 has nothing to be found.
    assert rows_of(found.known) == [(2, 0, 4.0, 1), (2, 1, 2.0, 8), (3, 2, 1.0, 7)]
    assert rows_of(found.held_out) == [(2, 3, 5.0, 9), (2, 4, 3.0, 10), (3, 1, 5.0, 9)]


def test_users_with_no_more_than_the_given_ratings_are_not_scored() -> None:
    held_out = ratings_of((2, 3, 5.0, 9), (2, 1, 2.0, 8))
    assert len(Holdout.of(ratings_of((2, 0, 4.0, 1)), held_out, num_given=2)) == 0
