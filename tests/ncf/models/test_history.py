"""The history of users against numpy and scikit-learn, one rating at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct

from ncf.config import HistoryConfig
from ncf.data.batches import TrainingBatch
from ncf.data.preprocessor import Preprocessor
from ncf.models.history.encoders import (
    EncoderInput,
    Explicit,
    HistoryInputs,
    Implicit,
    Statistics,
    Transformer,
)
from ncf.models.history.gaussian_process import GaussianProcess, RatingKernel
from ncf.models.history.ratings import History, Ratings, blocks

DAY = 86_400
SMALL = {"vector_dim": 4, "linear_dim": 2, "rbf_dim": 2}
CONFIG = HistoryConfig(encoders=("gaussian-process",), **SMALL)
FORECASTS = HistoryConfig(encoders=("gaussian-process",), causal=True, **SMALL)


def randomised(module: Any) -> Any:
    """The module with parameters far from their initial values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=generator)
    return module.double()


@pytest.fixture
def rows() -> Ratings:
    """Eleven ratings, of four movies, over some weeks, some of them seconds apart."""
    generator = np.random.default_rng(2)
    movies = torch.from_numpy(generator.integers(0, 4, 11))
    times = generator.integers(0, 40 * DAY, 11)
    times[5:8] = times[4] + np.array([4, 90, 2000])
    return Ratings.of(movies, torch.from_numpy(times))


@pytest.fixture
def residuals() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(size=11))


STARTS = torch.tensor([0, 1, 1, 8, 11])  # groups of one row, none, seven and three


def covariance(kernel: RatingKernel, rows: Ratings) -> np.ndarray:
    """The kernel's matrix, element by element."""
    values = {n: p.detach().numpy() for n, p in kernel.named_parameters()}
    content = kernel.vectors.content.numpy().astype(np.float64)
    free = values["vectors.free.weight"]
    index = kernel.vectors.index.numpy()
    result = np.zeros((len(rows.movies),) * 2)
    for i, (m, t) in enumerate(zip(rows.movies.tolist(), rows.days.tolist(), strict=True)):
        for j, (n, u) in enumerate(zip(rows.movies.tolist(), rows.days.tolist(), strict=True)):
            taste = [values["vectors.linear.weight"] @ content[k] + free[index[k]] for k in (m, n)]
            linear = [values["linear.linear.weight"] @ content[k] for k in (m, n)]
            place = [values["rbf_features.linear.weight"] @ content[k] for k in (m, n)]
            result[i, j] = np.exp(values["log_constant"])
            result[i, j] += taste[0] @ taste[1] + linear[0] @ linear[1]
            apart = ((place[0] - place[1]) ** 2).sum()
            alike = np.exp(-apart / 2)
            result[i, j] += np.exp(values["log_radial"]) * alike
            for scale, days in enumerate(values["log_days"]):
                near = np.exp(-abs(t - u) / np.exp(days))
                result[i, j] += np.exp(values["log_temporal"][scale]) * near
                result[i, j] += np.exp(values["log_temporal_similar"][scale]) * near * alike
    return result


@pytest.mark.parametrize("use_times", [True, False])
def test_the_kernel(preprocessor: Preprocessor, rows: Ratings, use_times: bool) -> None:
    kernel = randomised(RatingKernel(HistoryConfig(use_times=use_times, **SMALL), preprocessor))
    with torch.no_grad():
        found = kernel(Ratings(rows.movies[None], rows.days[None]), rows[torch.arange(11)[None]])
    np.testing.assert_allclose(found[0].numpy(), covariance(kernel, rows), rtol=1e-5, atol=1e-6)


def test_each_row_is_predicted_from_the_others_of_its_group(
    preprocessor: Preprocessor, rows: Ratings, residuals: torch.Tensor
) -> None:
    model = randomised(GaussianProcess(CONFIG, preprocessor))
    with torch.no_grad():
        found = model.within_groups(rows, residuals, STARTS).numpy()
    matrix = covariance(model.kernel, rows)
    weights = model.kernel.noises.linear.weight.detach().numpy()[0]
    content = model.kernel.noises.content.numpy()[rows.movies.numpy()].astype(np.float64)
    noise = np.exp(model.kernel.log_noise.item() + content @ weights)
    assert noise.max() > 1.05 * noise.min()
    for start, end in pairwise(STARTS.tolist()):
        for row in range(start, end):
            others = [other for other in range(start, end) if other != row]
            known = matrix[np.ix_(others, others)] + np.diag(noise[others])
            weights = np.linalg.solve(known, residuals.numpy()[others])
            assert found[row] == pytest.approx(matrix[row, others] @ weights, abs=1e-5)


def test_causal_predictions_use_earlier_rows_only(
    preprocessor: Preprocessor, rows: Ratings, residuals: torch.Tensor
) -> None:
    model = randomised(GaussianProcess(FORECASTS, preprocessor))
    with torch.no_grad():
        found = model.within_groups(rows, residuals, STARTS).numpy()
        noise = model.kernel.noise(rows.movies).numpy()
    matrix = covariance(model.kernel, rows)
    assert not rows.days[1:8].diff().ge(0).all()  # the rows do not come in the order of time
    for start, end in pairwise(STARTS.tolist()):
        for row in range(start, end):
            earlier = [o for o in range(start, end) if rows.days[o] < rows.days[row]]
            known = matrix[np.ix_(earlier, earlier)] + np.diag(noise[earlier])
            weights = np.linalg.solve(known, residuals.numpy()[earlier])
            assert found[row] == pytest.approx(matrix[row, earlier] @ weights, abs=1e-5)


def test_a_rows_own_rating_does_not_affect_its_prediction(
    preprocessor: Preprocessor, rows: Ratings, residuals: torch.Tensor
) -> None:
    model = randomised(GaussianProcess(CONFIG, preprocessor))
    changed = residuals.clone()
    changed[5] += 3.0
    with torch.no_grad():
        before, after = (model.within_groups(rows, r, STARTS) for r in (residuals, changed))
    assert after[5].item() == pytest.approx(before[5].item(), abs=1e-9)
    assert not torch.isclose(after[4], before[4])
    assert torch.equal(after[8:], before[8:])  # another group


def test_the_posterior_is_scikit_learns(preprocessor: Preprocessor) -> None:
    """With the parts that scikit-learn has as well: a constant and a dot product."""
    model = randomised(GaussianProcess(HistoryConfig(use_times=False, **SMALL), preprocessor))
    with torch.no_grad():
        model.kernel.log_radial.fill_(-80.0)
        model.kernel.noises.linear.weight.zero_()
    starts = torch.tensor([0, 0, 3, 7])  # user 0 is unknown, 1 has three ratings, 2 has four
    known = Ratings.of(torch.tensor([0, 1, 3, 3, 2, 0, 1]), torch.zeros(7))
    residuals = torch.tensor([0.5, -1.0, 0.3, 1.2, -0.4, 0.0, 0.9]).double()
    users = torch.tensor([2, 0, 1, 2])
    wanted = Ratings.of(torch.tensor([1, 2, 2, 3]), torch.zeros(4))
    with torch.no_grad():
        weights = model.solve(known, residuals, starts)
        found = model.posterior(users, wanted, known, weights, starts)
        vectors, _ = model.kernel.describe(torch.arange(4))
    noise = model.kernel.log_noise.exp().item()
    kernel = ConstantKernel(model.kernel.log_constant.exp().item()) + DotProduct(1e-9)
    for row, user in enumerate(users.tolist()):
        span = slice(int(starts[user]), int(starts[user + 1]))
        if user == 0:
            assert found[row] == 0
            continue
        process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
        process.fit(vectors[known.movies[span]].numpy(), residuals[span].numpy())
        expected = process.predict(vectors[wanted.movies[row]][None].numpy())
        assert found[row].item() == pytest.approx(expected[0], abs=1e-6)


def test_blocks_hold_groups_of_similar_size_and_every_row_once() -> None:
    lengths = torch.tensor([5, 0, 1, 2, 2, 9, 40, 1, 3])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(lengths, 0)])
    found = list(blocks(starts, pairs_at_once=200))
    taken = sorted(int(row) for block in found for row in block.rows[block.mask])
    assert taken == list(range(int(lengths.sum())))
    for block in found:
        assert torch.equal(block.mask.sum(1), lengths[block.groups])
        assert block.mask.float().mean() >= 0.5
        assert block.mask.shape[0] == 1 or block.mask.shape[0] * block.mask.shape[1] ** 2 <= 200
    assert list(blocks(torch.tensor([0]))) == []


def test_a_history_has_the_newest_ratings_of_each_user() -> None:
    rows = TrainingBatch(
        users=torch.tensor([2, 1, 2, 2, 1], dtype=torch.int32),
        movies=torch.tensor([10, 11, 12, 13, 14], dtype=torch.int32),
        targets=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]),
        loss_weights=torch.ones(5),
        times=torch.tensor([50, 90, 10, 30, 20]),
    )
    history = History.of(rows, num_users=3, max_ratings=2)
    assert history.starts.tolist() == [0, 0, 2, 4, 4]
    assert history.movies.tolist() == [14, 11, 13, 10]
    assert history.targets.tolist() == [5.0, 2.0, 4.0, 1.0]
    assert history.users.tolist() == [1, 1, 2, 2]
    again = History.from_arrow(history.to_arrow(), num_users=3)
    for name, column in vars(history).items():
        assert torch.equal(getattr(again, name), column), name


# -- encoders --------------------------------------------------------------------------------------


def encoder_input(rows: Ratings, residuals: torch.Tensor) -> EncoderInput:
    """Rows 0 to 2 as queries, all rows as history, of which some must not be used."""
    mask = torch.ones(1, 3, 11, dtype=torch.bool)
    mask[0, torch.arange(3), torch.arange(3)] = False
    mask[0, 2, 7:] = False
    queries, history = (rows[torch.arange(count)[None]] for count in (3, 11))
    return EncoderInput(queries, history, residuals[None], mask)


def test_statistics(preprocessor: Preprocessor, rows: Ratings, residuals: torch.Tensor) -> None:
    encoder = randomised(Statistics(HistoryConfig(**SMALL), preprocessor))
    with torch.no_grad():
        found = encoder(encoder_input(rows, residuals))[0].numpy()
        places = encoder.rbf_features(rows.movies).numpy()
        dampings = encoder.log_damping.exp().numpy()
        scales = encoder.log_days.exp().numpy()
    for query, looks_at in enumerate(encoder_input(rows, residuals).mask[0].numpy()):
        like = np.exp(-0.5 * ((places - places[query]) ** 2).sum(1))
        near = [np.exp(-np.abs(rows.days.numpy() - rows.days[query].item()) / s) for s in scales]
        weights = [np.ones(11), like] + [w for n in near for w in (n, n * like)]
        for number, weight in enumerate(weights):
            total = weight[looks_at].sum()
            mean = (weight * residuals.numpy())[looks_at].sum() / (total + dampings[number])
            assert found[query, number] == pytest.approx(mean, abs=1e-6)
            log_total = np.log1p(total) / 4
            assert found[query, len(weights) + number] == pytest.approx(log_total, abs=1e-6)


def test_implicit_and_explicit(
    preprocessor: Preprocessor, rows: Ratings, residuals: torch.Tensor
) -> None:
    config = HistoryConfig(**SMALL)
    implicit, explicit = (randomised(kind(config, preprocessor)) for kind in (Implicit, Explicit))
    with torch.no_grad():
        batch = encoder_input(rows, residuals)
        seen = [encoder(batch)[0].numpy() for encoder in (implicit, explicit)]
        of_movies = [encoder.vectors(rows.movies).numpy() for encoder in (implicit, explicit)]
        own = explicit.movies(rows.movies).numpy()
    for query, looks_at in enumerate(encoder_input(rows, residuals).mask[0].numpy()):
        count = looks_at.sum() + 1.0  # damped by one
        np.testing.assert_allclose(seen[0][query], of_movies[0][looks_at].sum(0) / count)
        taste = (of_movies[1] * residuals.numpy()[:, None])[looks_at].sum(0) / count
        np.testing.assert_allclose(seen[1][query, :-1], taste)
        assert seen[1][query, -1] == pytest.approx(taste @ own[query])


def test_the_transformer_respects_the_mask(
    preprocessor: Preprocessor, rows: Ratings, residuals: torch.Tensor
) -> None:
    encoder = randomised(Transformer(HistoryConfig(**SMALL), preprocessor))
    changed = residuals.clone()
    changed[9] += 2.0  # the last query must not look at this one
    with torch.no_grad():
        before, after = (encoder(encoder_input(rows, r))[0] for r in (residuals, changed))
    assert torch.equal(before[2], after[2])
    assert not torch.allclose(before[1], after[1])


def test_the_transformers_attention_by_hand(
    preprocessor: Preprocessor, rows: Ratings, residuals: torch.Tensor
) -> None:
    encoder = randomised(Transformer(HistoryConfig(**SMALL, heads=1), preprocessor))
    with torch.no_grad():
        found = encoder(encoder_input(rows, residuals))[0, 0].numpy()
        norm = encoder.before_attention
        target = encoder.movies(rows.movies[:1])
        known = norm(encoder.movies(rows.movies) + encoder.residual(residuals[:, None]))[1:]
        scores = (encoder.query(norm(target)) @ encoder.key(known).T)[0] / 2  # root of 4
        days = (rows.days[1:] - rows.days[0]).abs()
        scores = scores - torch.log1p(encoder.nearness.exp()) * torch.log1p(days)
        attended = torch.softmax(scores, 0) @ encoder.value(known)
        result = target + encoder.mix(attended[None])
        expected = (result + encoder.dense(encoder.before_dense(result)))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("name", ["statistics", "implicit", "explicit", "transformer"])
def test_no_training_row_is_encoded_from_its_own_rating(
    name: Any, preprocessor: Preprocessor, rows: Ratings, residuals: torch.Tensor
) -> None:
    inputs = randomised(HistoryInputs(HistoryConfig(encoders=(name,), **SMALL), preprocessor))
    changed = residuals.clone()
    changed[5] += 3.0
    with torch.no_grad():
        before, after = (inputs.within_groups(rows, r, STARTS) for r in (residuals, changed))
    assert torch.equal(after[5], before[5])
    assert torch.equal(after[8:], before[8:])
    assert name == "implicit" or not torch.allclose(after[4], before[4])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["statistics", "implicit", "explicit", "transformer"])
def test_a_group_without_one_row_is_a_history_for_that_row(
    name: Any, causal: bool, preprocessor: Preprocessor, rows: Ratings, residuals: torch.Tensor
) -> None:
    """What training computes for a row is what prediction computes from the others it looks at."""
    config = HistoryConfig(encoders=(name,), causal=causal, **SMALL)
    inputs = randomised(HistoryInputs(config, preprocessor))
    others = [row for row in range(1, 8) if row != 6]
    if causal:
        others = [row for row in others if rows.days[row] < rows.days[6]]
        assert 0 < len(others) < 6
    history = History(
        torch.tensor([0, 0, len(others)]),
        rows.movies[others],
        residuals[others],
        (rows.days[others] * DAY).round().long(),
    )
    with torch.no_grad():
        expected = inputs.within_groups(rows, residuals, STARTS)[6]
        query = rows[torch.tensor([6])]
        found = inputs.from_history(torch.tensor([1]), query, history)[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
