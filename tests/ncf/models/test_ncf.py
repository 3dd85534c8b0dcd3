from __future__ import annotations

from itertools import chain, combinations
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ncf.config import HistoryConfig, HistoryEncoderName, ModelConfig, ModelInput, TrainConfig
from ncf.data.preprocessor import Preprocessor
from ncf.models.conditioned import ConditionedModel
from ncf.models.ncf import NCF

INPUTS: tuple[ModelInput, ...] = get_args(ModelInput)
SUBSETS = list(chain.from_iterable(combinations(INPUTS, n) for n in (1, 2, len(INPUTS))))
USERS = torch.tensor([1, 2, 3, 0, 1, 2], dtype=torch.int32)
MOVIES = torch.tensor([0, 1, 2, 3, 3, 0], dtype=torch.int32)
TIMES = torch.arange(6) * 86_400 * 500

Array = npt.NDArray[np.float32]


def embedded(
    name: ModelInput, weights: dict[str, Array], preprocessor: Preprocessor, user: int, movie: int
) -> Array:
    """One input's vector for one row, in numpy."""
    table = preprocessor.movies
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


def by_hand(weights: dict[str, Array], preprocessor: Preprocessor, config: ModelConfig) -> Array:
    """The network's output, row for row, in numpy."""
    outputs = []
    for user, movie in zip(USERS.tolist(), MOVIES.tolist(), strict=True):
        x = np.concatenate(
            [embedded(name, weights, preprocessor, user, movie) for name in config.inputs]
        )
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
    config: ModelConfig, preprocessor: Preprocessor
) -> None:
    torch.manual_seed(1)
    model = NCF(config, preprocessor).eval()
    with torch.no_grad():
        outputs = model(USERS, MOVIES, TIMES)
    expected = by_hand(numpy_weights(model), preprocessor, config)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", SUBSETS, ids="-".join)
def test_every_choice_of_inputs_gives_one_number_a_row_and_trains_every_weight(
    inputs: tuple[ModelInput, ...], preprocessor: Preprocessor
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(inputs=inputs, embedding_dim=4, hidden_dims=(16, 8), embedding_std=1.0)
    model = NCF(config, preprocessor).eval()
    outputs = model(USERS, MOVIES, TIMES)
    assert outputs.shape == (6,)
    first, output = model.hidden[0], model.output
    assert isinstance(first, torch.nn.Linear)
    assert (first.in_features, output.in_features, output.out_features) == (4 * len(inputs), 8, 1)
    (outputs - 3).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row_keep_the_shape(rows: int, preprocessor: Preprocessor) -> None:
    model = NCF(ModelConfig(), preprocessor).eval()
    assert model(USERS[:rows], MOVIES[:rows], TIMES[:rows]).shape == (rows,)


def test_dropout_is_active_in_training_only(preprocessor: Preprocessor) -> None:
    torch.manual_seed(0)
    model = NCF(ModelConfig(dropout=0.5, embedding_std=1.0), preprocessor)
    model.train()
    assert not torch.equal(model(USERS, MOVIES, TIMES), model(USERS, MOVIES, TIMES))
    model.eval()
    assert torch.equal(model(USERS, MOVIES, TIMES), model(USERS, MOVIES, TIMES))


def test_an_untrained_network_starts_near_the_mean(preprocessor: Preprocessor) -> None:
    torch.manual_seed(0)
    model = NCF(ModelConfig(embedding_std=0.01), preprocessor).eval()
    model.init_output_bias(3.6)
    assert model.output.bias.item() == pytest.approx(3.6)
    torch.testing.assert_close(model(USERS, MOVIES, TIMES), torch.full((6,), 3.6), atol=0.5, rtol=0)


def l2_penalties(model: NCF) -> dict[str, float]:
    """Strength by parameter name."""
    config = TrainConfig(embedding_l2=3.0, bias_l2=5.0, history_l2=7.0)
    strengths = {id(table): strength for table, strength in model.l2_penalties(config)}
    return {n: strengths[id(p)] for n, p in model.named_parameters() if id(p) in strengths}


def test_l2_penalties_apply_to_tables_of_users_and_movies(preprocessor: Preprocessor) -> None:
    model = NCF(ModelConfig(biases=("user", "movie"), gmf_dim=3), preprocessor)
    assert l2_penalties(model) == {
        "branches.user.table.weight": 3.0,
        "branches.movie.table.weight": 3.0,
        "gmf.users.weight": 3.0,
        "gmf.movies.free.weight": 3.0,
        "biases.user.weight": 5.0,
        "biases.movie.weight": 5.0,
    }
    assert (
        l2_penalties(NCF(ModelConfig(inputs=("genres", "decade", "numeric")), preprocessor)) == {}
    )
    history = HistoryConfig(encoders=("explicit",))
    assert l2_penalties(NCF(ModelConfig(inputs=("genres",), history=history), preprocessor)) == {
        "history_inputs.level.movies.free.weight": 5.0,
        "history_inputs.encoders.0.vectors.free.weight": 7.0,
        "history_inputs.encoders.0.movies.free.weight": 7.0,
    }


def test_biases_and_factors_are_added(preprocessor: Preprocessor) -> None:
    torch.manual_seed(2)
    config = ModelConfig(biases=("user", "movie"), gmf_dim=3, dropout=0.0)
    model = NCF(config, preprocessor).eval()
    plain = NCF(ModelConfig(dropout=0.0), preprocessor).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    assert model.biases is not None
    assert model.gmf is not None
    with torch.no_grad():
        for table in (model.biases.user, model.biases.movie):
            assert table is not None
            table.weight[1:] = torch.randn(table.weight[1:].shape)
        model.gmf.output.weight.copy_(torch.tensor([[1.0, 2.0, -1.0]]))
        outputs = model(USERS, MOVIES, TIMES)
        expected = plain(USERS, MOVIES, TIMES).numpy()
        weights = numpy_weights(model)
    content = model.gmf.movies.content.numpy()
    index = preprocessor.movies.embedding_index
    for row, (user, movie) in enumerate(zip(USERS.tolist(), MOVIES.tolist(), strict=True)):
        vector = weights["gmf.movies.linear.weight"] @ content[movie]
        vector = vector + weights["gmf.movies.free.weight"][index[movie]]
        product = weights["gmf.users.weight"][user] * vector
        expected[row] += weights["biases.user.weight"][user, 0]
        expected[row] += weights["biases.movie.weight"][index[movie], 0]
        expected[row] += product @ np.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_predicting_without_a_required_history_is_an_error(preprocessor: Preprocessor) -> None:
    config = ModelConfig(history=HistoryConfig(encoders=("gaussian-process",)))
    network = NCF(config, preprocessor)
    with pytest.raises(RuntimeError, match=r"no history: call fit_history\(\) or set_history\(\)"):
        ConditionedModel(network).eval().expected_ratings(USERS, MOVIES, TIMES)
    with pytest.raises(ValueError, match=r"no groups of rows; .* use .*\.ConditionedModel"):
        network(USERS, MOVIES, TIMES)


def test_predicting_without_required_times_is_an_error(preprocessor: Preprocessor) -> None:
    encoders: tuple[HistoryEncoderName, ...] = ("gaussian-process", "statistics")
    for encoder in encoders:
        config = ModelConfig(history=HistoryConfig(encoders=(encoder,)))
        with pytest.raises(ValueError, match="needs the times"):
            ConditionedModel(NCF(config, preprocessor)).expected_ratings(USERS, MOVIES)
