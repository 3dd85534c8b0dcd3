from __future__ import annotations

from itertools import chain, combinations
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ncf.config import ModelConfig, ModelInput
from ncf.fitted import FittedState
from ncf.model import NCF

INPUTS: tuple[ModelInput, ...] = get_args(ModelInput)
SUBSETS = list(chain.from_iterable(combinations(INPUTS, n) for n in range(1, len(INPUTS) + 1)))
USERS = torch.tensor([1, 2, 3, 0, 1, 2], dtype=torch.int32)
MOVIES = torch.tensor([0, 1, 2, 3, 3, 0], dtype=torch.int32)

Array = npt.NDArray[np.float32]


def embedded(
    name: ModelInput, weights: dict[str, Array], fitted: FittedState, user: int, movie: int
) -> Array:
    """One input's vector for one row, in numpy."""
    table = fitted.movies
    if name == "user":
        return weights["branches.user.table.weight"][user]
    if name == "movie":
        return weights["branches.movie.table.weight"][table.embedding_index[movie]]
    if name == "decade":
        return weights["branches.decade.table.weight"][table.decade[movie]]
    if name == "numeric":
        weight = weights["branches.numeric.linear.weight"]
        return weight @ table.numeric[movie] + weights["branches.numeric.linear.bias"]
    vectors = weights["branches.genres.vectors"]
    own = [vectors[genre] for genre in np.flatnonzero(table.genres[movie])]
    return np.mean(own, axis=0) if own else np.zeros_like(vectors[0])


def by_hand(weights: dict[str, Array], fitted: FittedState, config: ModelConfig) -> Array:
    """The network's output, row for row, in numpy."""
    outputs = []
    for user, movie in zip(USERS.tolist(), MOVIES.tolist(), strict=True):
        x = np.concatenate([embedded(name, weights, fitted, user, movie) for name in config.inputs])
        for layer in range(len(config.hidden_dims)):
            # Linear, ReLU and dropout take three places each.
            weight, bias = (weights[f"hidden.{3 * layer}.{part}"] for part in ("weight", "bias"))
            x = np.maximum(weight @ x + bias, 0)
        outputs.append((weights["output.weight"] @ x + weights["output.bias"])[0])
    return np.array(outputs)


def numpy_weights(model: NCF) -> dict[str, Array]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(embedding_dim=8, hidden_dims=(128, 64), embedding_std=1.0),
        ModelConfig(embedding_dim=3, hidden_dims=(5,), inputs=("numeric", "user", "genres")),
        ModelConfig(embedding_dim=2, hidden_dims=(), inputs=("movie", "decade"), dropout=0.5),
    ],
)
def test_the_forward_pass_equals_one_written_in_numpy(
    config: ModelConfig, fitted: FittedState
) -> None:
    torch.manual_seed(1)
    model = NCF(config, fitted).eval()
    with torch.no_grad():
        outputs = model(USERS, MOVIES)
    expected = by_hand(numpy_weights(model), fitted, config)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", SUBSETS, ids="-".join)
def test_every_choice_of_inputs_gives_one_number_a_row_and_trains_every_weight(
    inputs: tuple[ModelInput, ...], fitted: FittedState
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(inputs=inputs, embedding_dim=4, hidden_dims=(16, 8), embedding_std=1.0)
    model = NCF(config, fitted).eval()
    outputs = model(USERS, MOVIES)
    assert outputs.shape == (6,)
    first, output = model.hidden[0], model.output
    assert isinstance(first, torch.nn.Linear)
    assert (first.in_features, output.in_features, output.out_features) == (4 * len(inputs), 8, 1)
    (outputs - 3).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row_keep_the_shape(rows: int, fitted: FittedState) -> None:
    model = NCF(ModelConfig(), fitted).eval()
    assert model(USERS[:rows], MOVIES[:rows]).shape == (rows,)


def test_dropout_is_active_in_training_only(fitted: FittedState) -> None:
    torch.manual_seed(0)
    model = NCF(ModelConfig(dropout=0.5, embedding_std=1.0), fitted)
    model.train()
    assert not torch.equal(model(USERS, MOVIES), model(USERS, MOVIES))
    model.eval()
    assert torch.equal(model(USERS, MOVIES), model(USERS, MOVIES))


def test_an_untrained_network_starts_near_the_mean(fitted: FittedState) -> None:
    torch.manual_seed(0)
    model = NCF(ModelConfig(embedding_std=0.01), fitted).eval()
    model.start_at(3.6)
    assert model.output.bias.item() == pytest.approx(3.6)
    torch.testing.assert_close(model(USERS, MOVIES), torch.full((6,), 3.6), atol=0.5, rtol=0)


def test_the_ridge_acts_on_user_and_movie_vectors_only(fitted: FittedState) -> None:
    model = NCF(ModelConfig(embedding_dim=5), fitted)
    ridged = list(model.entity_vectors())
    names = {n for n, p in model.named_parameters() if any(p is vectors for vectors in ridged)}
    assert names == {"branches.user.table.weight", "branches.movie.table.weight"}
    without = NCF(ModelConfig(inputs=("genres", "decade", "numeric")), fitted)
    assert list(without.entity_vectors()) == []
