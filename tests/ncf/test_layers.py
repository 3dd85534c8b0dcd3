from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from ncf.config import ModelConfig
from ncf.fitted import FittedState
from ncf.layers import (
    BRANCHES,
    DecadeEmbedding,
    GenreAverage,
    MovieEmbedding,
    NumericProjection,
    UserEmbedding,
    embedding,
)

SMALL = ModelConfig(embedding_dim=2)
USERS = torch.tensor([1, 2, 3, 0], dtype=torch.int32)
MOVIES = torch.tensor([0, 1, 2, 3], dtype=torch.int32)


def set_table(table: torch.nn.Embedding, rows: list[list[float]]) -> None:
    """Vectors for indices 1, 2, ...; that of the unknown index stays as it was built."""
    with torch.no_grad():
        table.weight[1:] = torch.tensor(rows)


def test_the_average_of_no_one_and_two_genres_by_hand(fitted: FittedState) -> None:
    branch = GenreAverage(SMALL, fitted)
    with torch.no_grad():
        branch.vectors.copy_(torch.tensor([[1.0, 2.0], [10.0, 20.0], [4.0, -6.0]]))
    # Comedy; Comedy and War; none; Drama
    expected = torch.tensor([[1.0, 2.0], [2.5, -2.0], [0.0, 0.0], [10.0, 20.0]])
    assert torch.equal(branch(USERS, MOVIES), expected)


def test_the_genre_average_depends_on_nothing_but_the_movie(fitted: FittedState) -> None:
    branch = GenreAverage(SMALL, fitted)
    together = branch(USERS, MOVIES)
    for position in range(4):
        alone = branch(USERS[position : position + 1], MOVIES[position : position + 1])
        torch.testing.assert_close(alone[0], together[position])
    torch.testing.assert_close(branch(USERS.flip(0), MOVIES), together)


def test_a_genre_outside_the_vocabulary_of_a_movie_gets_no_gradient(fitted: FittedState) -> None:
    branch = GenreAverage(SMALL, fitted)
    branch(USERS[:2], torch.tensor([1, 2])).sum().backward()
    # Movie 1 is half comedy, half war; movie 2 has no genre at all.
    assert torch.equal(
        cast(torch.Tensor, branch.vectors.grad),
        torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]]),
    )


def test_user_vectors_are_looked_up_and_unknown_users_are_zero(fitted: FittedState) -> None:
    branch = UserEmbedding(SMALL, fitted)
    assert branch.table.weight.shape == (4, 2)
    set_table(branch.table, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [0.0, 0.0]])
    assert torch.equal(branch(USERS, MOVIES), expected)


def test_movies_without_a_training_rating_are_zero(fitted: FittedState) -> None:
    branch = MovieEmbedding(SMALL, fitted)
    assert branch.table.weight.shape == (4, 2)
    set_table(branch.table, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    expected = torch.tensor([[0.0, 0.0], [5.0, 6.0], [1.0, 2.0]])
    assert torch.equal(branch(USERS[:3], torch.tensor([3, 2, 0])), expected)


def test_movie_vectors_follow_the_embedding_index_and_not_the_position(
    fitted: FittedState,
) -> None:
    movies = replace(fitted.movies, embedding_index=np.array([0, 1, 0, 2]))
    branch = MovieEmbedding(SMALL, replace(fitted, movies=movies))
    set_table(branch.table, [[1.0, 2.0], [3.0, 4.0]])
    expected = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    assert torch.equal(branch(USERS, MOVIES), expected)


def test_decade_vectors_are_looked_up_and_unknown_decades_are_zero(fitted: FittedState) -> None:
    branch = DecadeEmbedding(SMALL, fitted)
    set_table(branch.table, [[1.0, 2.0], [3.0, 4.0]])
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    assert torch.equal(branch(USERS, MOVIES), expected)


def test_the_numeric_projection_by_hand(fitted: FittedState) -> None:
    branch = NumericProjection(SMALL, fitted)
    with torch.no_grad():
        branch.linear.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 10.0]]))
        branch.linear.bias.copy_(torch.tensor([0.5, 0.25]))
    # Features (0.5, -1, 0), (-0.5, 1, 0), (0, 0, 1), (2, 2, 0)
    expected = torch.tensor([[-1.0, -0.25], [2.0, 0.75], [3.5, 10.25], [6.5, -1.75]])
    torch.testing.assert_close(branch(USERS, MOVIES), expected)


@pytest.mark.parametrize("name", ["user", "movie", "decade"])
def test_the_vector_of_what_is_unknown_stays_zero_while_training(
    name: str, fitted: FittedState
) -> None:
    torch.manual_seed(0)
    branch = BRANCHES[name](SMALL, fitted)  # type: ignore[index]
    table = cast(torch.nn.Embedding, branch.table)
    before = table.weight.detach().clone()
    optimizer = torch.optim.AdamW(branch.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (branch(USERS, MOVIES) - 3).square().sum().backward()
        optimizer.step()
    assert torch.equal(table.weight[0], torch.zeros(2))
    assert (table.weight[1:] != before[1:]).all()


def test_initial_vectors_have_the_configured_spread() -> None:
    torch.manual_seed(0)
    table = embedding(5000, ModelConfig(embedding_dim=8, embedding_std=0.3))
    assert table.weight[1:].std().item() == pytest.approx(0.3, rel=0.02)
    assert table.weight[1:].mean().item() == pytest.approx(0, abs=0.01)
    assert not table.weight[0].any()


def test_the_movie_table_is_no_part_of_the_saved_weights(fitted: FittedState) -> None:
    names = {name: list(build(SMALL, fitted).state_dict()) for name, build in BRANCHES.items()}
    assert names == {
        "user": ["table.weight"],
        "movie": ["table.weight"],
        "genres": ["vectors"],
        "decade": ["table.weight"],
        "numeric": ["linear.weight", "linear.bias"],
    }
