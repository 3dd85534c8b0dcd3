from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from ncf.config import ModelConfig
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor
from ncf.errors import DataError
from ncf.models.branches.base import Branch, build_branch
from ncf.models.branches.content import (
    CastAverage,
    DecadeEmbedding,
    DirectorsAverage,
    GenreAverage,
    NumericProjection,
)
from ncf.models.branches.entities import MovieEmbedding, UserEmbedding
from ncf.models.branches.times import TimeFeatures, release_years
from ncf.models.layers import BatchNorm, ContentVector, content_features, embedding
from ncf.registry import BRANCHES
from tests.ncf.worlds import training_rows

SMALL = ModelConfig(embedding_dim=2)
USERS = torch.tensor([1, 2, 3, 0], dtype=torch.int32)
MOVIES = torch.tensor([0, 1, 2, 3], dtype=torch.int32)


def set_table(table: torch.nn.Embedding, rows: list[list[float]]) -> None:
    """Vectors for indices 1, 2, ...; that of the unknown index stays as it was built."""
    with torch.no_grad():
        table.weight[1:] = torch.tensor(rows)


def test_the_average_of_no_one_and_two_genres_by_hand(preprocessor: Preprocessor) -> None:
    branch = GenreAverage(SMALL, preprocessor)
    with torch.no_grad():
        branch.vectors.copy_(torch.tensor([[1.0, 2.0], [10.0, 20.0], [4.0, -6.0]]))
    # Comedy; Comedy and War; none; Drama
    expected = torch.tensor([[1.0, 2.0], [2.5, -2.0], [0.0, 0.0], [10.0, 20.0]])
    assert torch.equal(branch(USERS, MOVIES), expected)


def test_the_genre_average_depends_on_nothing_but_the_movie(preprocessor: Preprocessor) -> None:
    branch = GenreAverage(SMALL, preprocessor)
    together = branch(USERS, MOVIES)
    for position in range(4):
        alone = branch(USERS[position : position + 1], MOVIES[position : position + 1])
        torch.testing.assert_close(alone[0], together[position])
    torch.testing.assert_close(branch(USERS.flip(0), MOVIES), together)


def test_a_genre_outside_the_vocabulary_of_a_movie_gets_no_gradient(
    preprocessor: Preprocessor,
) -> None:
    branch = GenreAverage(SMALL, preprocessor)
    branch(USERS[:2], torch.tensor([1, 2])).sum().backward()
    # Movie 1 is half comedy, half war; movie 2 has no genre at all.
    assert torch.equal(
        cast(torch.Tensor, branch.vectors.grad),
        torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]]),
    )


def test_user_vectors_are_looked_up_and_unknown_users_are_zero(preprocessor: Preprocessor) -> None:
    branch = UserEmbedding(SMALL, preprocessor)
    assert branch.table.weight.shape == (4, 2)
    set_table(branch.table, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [0.0, 0.0]])
    assert torch.equal(branch(USERS, MOVIES), expected)


def test_movies_without_a_training_rating_are_zero(preprocessor: Preprocessor) -> None:
    branch = MovieEmbedding(SMALL, preprocessor)
    assert branch.table.weight.shape == (4, 2)
    set_table(branch.table, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    expected = torch.tensor([[0.0, 0.0], [5.0, 6.0], [1.0, 2.0]])
    assert torch.equal(branch(USERS[:3], torch.tensor([3, 2, 0])), expected)


def test_movie_vectors_follow_the_embedding_index_and_not_the_position(
    preprocessor: Preprocessor,
) -> None:
    movies = replace(preprocessor.movies, embedding_index=np.array([0, 1, 0, 2]))
    branch = MovieEmbedding(SMALL, replace(preprocessor, movies=movies))
    set_table(branch.table, [[1.0, 2.0], [3.0, 4.0]])
    expected = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    assert torch.equal(branch(USERS, MOVIES), expected)


def test_decade_vectors_are_looked_up_and_unknown_decades_are_zero(
    preprocessor: Preprocessor,
) -> None:
    branch = DecadeEmbedding(SMALL, preprocessor)
    set_table(branch.table, [[1.0, 2.0], [3.0, 4.0]])
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    assert torch.equal(branch(USERS, MOVIES), expected)


def test_the_numeric_projection_by_hand(preprocessor: Preprocessor) -> None:
    branch = NumericProjection(SMALL, preprocessor)
    with torch.no_grad():
        branch.linear.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 10.0]]))
        branch.linear.bias.copy_(torch.tensor([0.5, 0.25]))
    # Features (0.5, -1, 0), (-0.5, 1, 0), (0, 0, 1), (2, 2, 0)
    expected = torch.tensor([[-1.0, -0.25], [2.0, 0.75], [3.5, 10.25], [6.5, -1.75]])
    torch.testing.assert_close(branch(USERS, MOVIES), expected)


@pytest.mark.parametrize("name", ["user", "movie", "decade"])
def test_the_vector_of_unknown_entities_stays_zero_in_training(
    name: str, preprocessor: Preprocessor
) -> None:
    torch.manual_seed(0)
    embedded = build_branch(name, SMALL, preprocessor)
    table = cast(torch.nn.Embedding, embedded.table)
    before = table.weight.detach().clone()
    optimizer = torch.optim.AdamW(embedded.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (embedded(USERS, MOVIES) - 3).square().sum().backward()
        optimizer.step()
    assert torch.equal(table.weight[0], torch.zeros(2))
    assert (table.weight[1:] != before[1:]).all()


def test_initial_vectors_have_the_configured_spread() -> None:
    torch.manual_seed(0)
    table = embedding(5000, ModelConfig(embedding_dim=8, embedding_std=0.3))
    assert table.weight[1:].std().item() == pytest.approx(0.3, rel=0.02)
    assert table.weight[1:].mean().item() == pytest.approx(0, abs=0.01)
    assert not table.weight[0].any()


def test_the_movie_table_is_no_part_of_the_saved_weights(preprocessor: Preprocessor) -> None:
    names = {name: list(build_branch(name, SMALL, preprocessor).state_dict()) for name in BRANCHES}
    assert names == {
        "user": ["table.weight"],
        "movie": ["table.weight"],
        "genres": ["vectors"],
        "decade": ["table.weight"],
        "numeric": ["linear.weight", "linear.bias"],
        "time": ["first", "linear.weight", "linear.bias"],
        "directors": ["table.weight"],
        "cast": ["table.weight"],
        "keywords": ["table.weight"],
    }


def test_the_average_of_a_cast_by_hand(preprocessor: Preprocessor) -> None:
    branch = CastAverage(SMALL, preprocessor)
    set_table(branch.table, [[1.0, 2.0], [5.0, -4.0]])
    expected = torch.tensor([[3.0, -1.0], [5.0, -4.0], [0.0, 0.0], [1.0, 2.0]])
    assert torch.equal(branch(USERS, MOVIES), expected)


def test_names_that_the_data_do_not_have_are_an_error(preprocessor: Preprocessor) -> None:
    only_cast = replace(preprocessor, vocabularies={"cast": preprocessor.vocabularies["cast"]})
    with pytest.raises(DataError, match=r"'directors' needs TMDb records.*have cast"):
        DirectorsAverage(SMALL, only_cast)


YEAR = round(365.25 * 86_400)


@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_depends_on_what_it_declares(
    name: str, preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    torch.manual_seed(0)
    branch = build_branch(name, SMALL, preprocessor).eval()
    rows = make_rows([1, 2], [0, 1], [3.0, 4.0], None, [20 * YEAR, 25 * YEAR])
    branch.fit_rows(training_rows(rows))
    ones, twos = torch.tensor([1], dtype=torch.int32), torch.tensor([2], dtype=torch.int32)
    early, late = torch.tensor([30 * YEAR]), torch.tensor([35 * YEAR])
    with torch.no_grad():
        before = branch(ones, ones, early)
        differs = {
            "user": not torch.equal(branch(twos, ones, early), before),
            "movie": not torch.equal(branch(ones, twos, early), before),
        }
        assert differs == {
            which: branch.depends_on in (which, "both") for which in ("user", "movie")
        }
        assert torch.equal(branch(ones, ones, late), before) != branch.uses_time


def test_what_the_rows_change_in_a_branch_is_declared(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    for name in BRANCHES:
        branch: Branch = build_branch(name, SMALL, preprocessor)
        before = {id(buffer): buffer.clone() for buffer in branch.buffers()}
        rows = make_rows([1, 2], [0, 1], [3.0, 4.0], None, [20 * YEAR, 25 * YEAR])
        branch.fit_rows(training_rows(rows))
        changed = {id(b) for b in branch.buffers() if not torch.equal(b, before[id(b)])}
        assert changed == {id(buffer) for buffer in branch.fitted_buffers()}, name


def test_time_features_by_hand(preprocessor: Preprocessor, make_rows: Callable[..., Batch]) -> None:
    branch = TimeFeatures(SMALL, preprocessor)
    with torch.no_grad():
        branch.linear.weight.copy_(torch.tensor([[4.0, 100.0, 0.0, 0.0], [0.0, 0.0, 4.0, 1.0]]))
        branch.linear.bias.zero_()
    times = [30 * YEAR, 20 * YEAR, 10 * YEAR]
    branch.fit_rows(training_rows(make_rows([1, 1, 2], [0, 0, 0], [0.0] * 3, None, times)))
    # The user's first training rating, three days after it, before it, and an unknown user.
    later = torch.tensor([20 * YEAR, 20 * YEAR + 3 * 86_400, 9 * YEAR, 30 * YEAR])
    # The years 1987.5, 1985 and 1990 follow from the standardised ones, (x * 5) + 1990.
    movies = torch.tensor([0, 1, 2, 3])
    years = np.array([1985.0, 1995.0, 1990.0, 2000.0])
    with torch.no_grad():
        found = branch(torch.tensor([1, 1, 2, 0]), movies, later).numpy()
    np.testing.assert_allclose(found[:, 0], [0, np.log1p(3) + 100, 0, 0], atol=1e-4)
    age = np.sqrt(np.maximum(1970 + later.numpy() / (365.25 * 86_400) - years, 0))
    decades = (later.numpy() - preprocessor.decay_reference) / (3652.5 * 86_400)
    np.testing.assert_allclose(found[:, 1], age + decades, rtol=1e-4, atol=1e-4)


def test_the_age_of_a_movie_without_a_year_is_zero(preprocessor: Preprocessor) -> None:
    without = replace(preprocessor, numeric=preprocessor.numeric[:1])
    assert release_years(without).isnan().all()
    branch = TimeFeatures(SMALL, without)
    assert branch(USERS, MOVIES, torch.full((4,), YEAR)).isfinite().all()


def test_missing_times_are_an_error(preprocessor: Preprocessor) -> None:
    with pytest.raises(ValueError, match="needs the times"):
        TimeFeatures(SMALL, preprocessor)(USERS, MOVIES)


def test_a_movies_content_and_its_free_vector_add_up(preprocessor: Preprocessor) -> None:
    # Genres, then decades, then the numeric columns.
    expected = [[1, 0, 0, 1, 0, 0.5, -1, 0], [1, 0, 1, 0, 1, -0.5, 1, 0],
                [0, 0, 0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 2, 2, 0]]  # fmt: skip
    assert content_features(preprocessor).tolist() == expected
    vector = ContentVector(2, preprocessor, free_std=1.0)
    assert vector.free is not None
    with torch.no_grad():
        vector.linear.weight.copy_(torch.arange(16.0).reshape(2, 8))
        free = vector.free.weight[[1, 2, 3, 0]]
        found = vector(MOVIES)
    np.testing.assert_allclose(
        found.numpy(),
        np.array(expected) @ np.arange(16.0).reshape(2, 8).T + free.numpy(),
        rtol=1e-5,
    )
    assert vector.free.weight[0].eq(0).all()  # a movie without training ratings has no free part
    assert ContentVector(2, preprocessor, free_std=None).free is None


def test_batch_normalisation_is_torchs_but_takes_a_single_row() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm1d(3)
    inputs = torch.randn(5, 3)
    torch.testing.assert_close(ours(inputs), theirs(inputs))
    # A row is its own mean: what is left of it is the bias, and the variance seen is zero.
    with torch.no_grad():
        ours.bias.fill_(0.5)
    assert ours.running_var is not None
    assert theirs.running_mean is not None
    before = ours.running_var.clone()
    torch.testing.assert_close(ours(inputs[:1]), torch.full((1, 3), 0.5))
    torch.testing.assert_close(ours.running_var, before * 0.9)
    torch.testing.assert_close(ours.running_mean, 0.9 * theirs.running_mean + 0.1 * inputs[0])
