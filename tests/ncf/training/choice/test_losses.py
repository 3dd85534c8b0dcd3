"""Losses by hand, by torch, and by slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ncf.choice_config import NetworkConfig
from ncf.models.choice.network import Choices, KnownRatings, Logits
from ncf.registry import CHOICE_LOSSES
from ncf.training.choice.batches import ChoiceBatch
from ncf.training.choice.losses import BCE, BPR, WARP, ChoiceLoss, SampledSoftmax, Softmax, get_loss
from ncf.training.choice.negatives import Drawn, Sampler

CPU = torch.device("cpu")
M = 12
KNOWN = [[0, 3], [5], [1, 2, 4]]
CHOSEN = [[1, 2, 9], [0], [0, 11]]
COUNTS = np.array([9, 5, 3, 3, 2, 2, 1, 1, 1, 0, 0, 0])
SAMPLED = [name for name in CHOICE_LOSSES if name != "softmax"]


def batch_of(known: list[list[int]], chosen: list[list[int]]) -> ChoiceBatch:
    counts = torch.tensor([0, *map(len, known)])
    rows = torch.tensor([row for row, movies in enumerate(chosen) for _ in movies])
    generator = torch.Generator().manual_seed(4)
    return ChoiceBatch(
        known=KnownRatings(
            movies=torch.tensor([m for movies in known for m in movies], dtype=torch.int64),
            levels=torch.zeros(int(counts.sum()), dtype=torch.int64),
            starts=counts.cumsum(0),
            users=torch.arange(len(known)),
            eras=torch.zeros(len(known), 8),
            years=torch.zeros(len(known), dtype=torch.int64),
        ),
        choices=Choices(rows, torch.tensor([movie for movies in chosen for movie in movies])),
        weights=torch.rand(len(rows), generator=generator),
        num_users=len(known),
    )


BATCH = batch_of(KNOWN, CHOSEN)


def random_scores(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(3, M, generator=generator)).requires_grad_()


def logits_of(scores: torch.Tensor, movies: torch.Tensor | None = None) -> Logits:
    """``scores: [B, M]`` as the network returns them."""
    choices = scores[BATCH.choices.rows, BATCH.choices.movies]
    return Logits(choices, scores.clone() if movies is None else scores[:, movies])


def loss_of(name: str, negatives: int = 4) -> ChoiceLoss:
    return get_loss(NetworkConfig(loss=name, negatives=negatives), COUNTS, CPU)


def drawn_for(loss: ChoiceLoss, seed: int = 0) -> Drawn:
    drawn = loss.draw(BATCH, np.random.default_rng(seed))
    assert drawn is not None
    return drawn


def all_drawn_once() -> Drawn:
    rated = torch.zeros(3, M, dtype=torch.bool)
    for row in range(3):
        rated[row, KNOWN[row] + CHOSEN[row]] = True
    return Drawn(
        movies=torch.arange(M),
        log_counts=torch.zeros(M),
        log_expected=torch.zeros(M),
        is_rated=rated,
        of_choices=torch.zeros(len(BATCH.weights), 0, dtype=torch.int64),
    )


def rated(row: int) -> set[int]:
    return {*KNOWN[row], *CHOSEN[row]}


def triples() -> list[tuple[int, int, int]]:
    """Number, row and movie of each choice."""
    pairs = zip(BATCH.choices.rows.tolist(), BATCH.choices.movies.tolist(), strict=True)
    return [(number, row, movie) for number, (row, movie) in enumerate(pairs)]


def test_softmax_is_torchs_cross_entropy_without_known_movies() -> None:
    scores = random_scores()
    found = loss_of("softmax").of_choices(logits_of(scores), BATCH, None)
    masked = scores.detach().clone()
    for row, movies in enumerate(KNOWN):
        masked[row, movies] = -torch.inf
    rows, movies_ = BATCH.choices
    expected = functional.cross_entropy(masked[rows], movies_, reduction="none")
    torch.testing.assert_close(found, expected)


def test_sampled_softmax_of_all_movies_is_the_softmax() -> None:
    config = NetworkConfig()
    gradients, values = [], []
    for loss, drawn in (
        (Softmax(config, COUNTS, CPU), None),
        (SampledSoftmax(config, COUNTS, CPU), all_drawn_once()),
    ):
        scores = random_scores()
        movies = None if drawn is None else drawn.movies
        total = loss.total(logits_of(scores, movies), BATCH, drawn)
        (gradient,) = torch.autograd.grad(total, scores)
        values.append(total)
        gradients.append(gradient)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_sampled_softmax_estimates_the_sum_without_bias() -> None:
    loss, scores = loss_of("sampled_softmax", negatives=2), random_scores().detach()
    exact = loss_of("softmax").of_choices(logits_of(scores), BATCH, None)
    rng = np.random.default_rng(1)
    sums = []
    for _ in range(4000):
        drawn = loss.draw(BATCH, rng)
        assert drawn is not None
        sums.append(loss.of_choices(logits_of(scores, drawn.movies), BATCH, drawn).exp())
    torch.testing.assert_close(torch.stack(sums).mean(0), exact.exp(), rtol=0.05, atol=0)


def test_bpr_by_a_slow_loop() -> None:
    loss, scores = loss_of("bpr"), random_scores().detach()
    drawn = drawn_for(loss)
    found = loss.of_choices(logits_of(scores, drawn.movies), BATCH, drawn)
    probabilities = (COUNTS + 0.5) ** BPR.power
    corrected = scores.double().numpy() - np.log(probabilities / probabilities.sum())
    for number, row, movie in triples():
        movies = [int(drawn.movies[at]) for at in drawn.of_choices[number]]
        assert len(movies) == 4
        margins = [
            corrected[row, movie] - corrected[row, other]
            for other in movies
            if other not in rated(row)
        ]
        expected = np.mean([math.log1p(math.exp(-margin)) for margin in margins] or [0])
        assert found[number].item() == pytest.approx(expected, rel=1e-4)


def test_warp_by_a_slow_loop() -> None:
    loss, scores = loss_of("warp", negatives=6), random_scores().detach()
    violated = 0
    for seed in range(5):
        drawn = drawn_for(loss, seed)
        found = loss.of_choices(logits_of(scores, drawn.movies), BATCH, drawn)
        for number, row, movie in triples():
            draws, expected = 0, 0.0
            for at in drawn.of_choices[number]:
                other = int(drawn.movies[at])
                if other in rated(row):
                    continue
                draws += 1
                hinge = 1 - float(scores[row, movie]) + float(scores[row, other])
                if hinge > 0:
                    rank = (M - 1) // draws
                    weight = sum(1 / i for i in range(1, rank + 1))
                    expected = hinge * weight / sum(1 / i for i in range(1, M))
                    violated += draws > 1
                    break
            assert found[number].item() == pytest.approx(expected, rel=1e-4)
    assert violated  # not only at the first draw


def test_bce_by_a_slow_loop() -> None:
    loss, scores = loss_of("bce"), random_scores().detach()
    drawn = drawn_for(loss)
    found = loss.of_choices(logits_of(scores, drawn.movies), BATCH, drawn)
    counts = COUNTS + 0.5
    offset = math.log(M / 4 / (counts / np.exp(np.log(counts).mean())).sum())
    shifted = scores.double().numpy() + offset
    times = drawn.log_counts.exp().round().int().tolist()
    assert sum(times) == 12  # 4 for each of 3 users
    draws = [m for m, t in zip(drawn.movies.tolist(), times, strict=True) for _ in range(t)]
    for number, row, movie in triples():
        negatives = [
            math.log1p(math.exp(shifted[row, other])) for other in draws if other not in rated(row)
        ]
        expected = math.log1p(math.exp(-shifted[row, movie])) + 4 * np.mean(negatives)
        assert found[number].item() == pytest.approx(expected, rel=1e-4)


def test_bce_starts_with_the_probabilities_of_popularity() -> None:
    """A movie's logit is then that of its share of choices against its share of draws."""
    logarithms = torch.from_numpy(np.log(COUNTS + 0.5)).float()
    loss = loss_of("bce", negatives=1)
    assert isinstance(loss, BCE)
    drawn = drawn_for(loss)
    scores = (logarithms - logarithms.mean()).expand(3, M)
    found = loss.of_choices(logits_of(scores, drawn.movies), BATCH, drawn)
    share = (COUNTS + 0.5) / (COUNTS + 0.5).sum()
    unrated = [float(share[int(m)]) for m in drawn.movies if int(m) not in rated(1)]
    times = [
        float(c.exp())
        for m, c in zip(drawn.movies, drawn.log_counts, strict=True)
        if int(m) not in rated(1)
    ]
    positive = share[0] / (share[0] + 1 / M)  # the second user chose the first movie
    negative = [1 - s / (s + 1 / M) for s in unrated]
    expected = -math.log(positive) - np.average(np.log(negative), weights=times)
    assert found[3].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", CHOICE_LOSSES)
def test_gradients_raise_choices_and_lower_movies_that_are_not_rated(name: str) -> None:
    loss, scores = loss_of(name), random_scores()
    drawn = loss.draw(BATCH, np.random.default_rng(0))
    # The gradient as a candidate alone is seen if the choices' own logits are cut off.
    choices = scores[BATCH.choices.rows, BATCH.choices.movies].detach().requires_grad_()
    movies = torch.arange(M) if drawn is None else drawn.movies
    candidates = scores.detach()[:, movies].clone().requires_grad_()
    loss.total(Logits(choices, candidates.clone()), BATCH, drawn).backward()
    assert choices.grad is not None
    assert candidates.grad is not None
    assert (choices.grad <= 0).all()
    assert (choices.grad < 0).any()
    assert (candidates.grad >= 0).all()
    assert (candidates.grad > 0).any()
    for row in range(3):
        known = torch.isin(movies, torch.tensor(KNOWN[row]))
        assert candidates.grad[row, known].count_nonzero() == 0
        if name != "softmax":  # where choices compete with one another
            chosen = torch.isin(movies, torch.tensor(CHOSEN[row]))
            assert candidates.grad[row, chosen].count_nonzero() == 0


@pytest.mark.parametrize("name", CHOICE_LOSSES)
def test_the_sum_over_workers_is_the_loss_of_the_batch(name: str) -> None:
    loss, scores = loss_of(name), random_scores().detach()
    drawn = loss.draw(BATCH, np.random.default_rng(0))
    logits = logits_of(scores, None if drawn is None else drawn.movies)
    each = loss.of_choices(Logits(logits.choices, logits.candidates.clone()), BATCH, drawn)
    total = loss.total(logits, BATCH, drawn)
    assert each.shape == BATCH.weights.shape
    assert total.item() == pytest.approx(float((each * BATCH.weights).sum()) / 3)


@pytest.mark.parametrize("name", CHOICE_LOSSES)
def test_a_worker_without_users_has_no_loss(name: str) -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    known = KnownRatings(empty, empty, torch.zeros(1, dtype=torch.int64), empty, empty, empty)
    batch = ChoiceBatch(known, Choices(empty, empty), torch.zeros(0), num_users=5)
    loss = loss_of(name)
    drawn = loss.draw(batch, np.random.default_rng(0))
    width = M if drawn is None else len(drawn.movies)
    candidates = torch.zeros(0, width, requires_grad=True)
    choices = torch.zeros(0, requires_grad=True)
    total = loss.total(Logits(choices, candidates.clone()), batch, drawn)
    total.backward()
    assert total.item() == 0


@pytest.mark.parametrize("name", SAMPLED)
def test_a_user_who_rated_all_drawn_movies_has_a_finite_loss(name: str) -> None:
    loss, scores = loss_of(name), random_scores()
    drawn = drawn_for(loss)
    drawn.is_rated[:] = True
    total = loss.total(logits_of(scores, drawn.movies), BATCH, drawn)
    (gradient,) = torch.autograd.grad(total, scores)
    assert total.isfinite()
    assert gradient.isfinite().all()


def test_draws_are_in_proportion_to_the_power_of_popularity() -> None:
    sampler = Sampler(COUNTS, 0.5, CPU)
    drawn = sampler.draw(BATCH, 100_000, 0, np.random.default_rng(0))
    weights = np.sqrt(COUNTS + 0.5)
    expected = 100_000 * weights / weights.sum()
    assert drawn.movies.tolist() == list(range(M))
    np.testing.assert_allclose(drawn.log_counts.exp(), expected, rtol=0.05)
    np.testing.assert_allclose(drawn.log_expected.exp(), expected, rtol=1e-4)


def test_draws_are_distinct_movies_and_know_what_is_rated() -> None:
    sampler = Sampler(COUNTS, 1.0, CPU)
    for seed in range(5):
        drawn = sampler.draw(BATCH, 6, 50, np.random.default_rng(seed))
        movies = drawn.movies.tolist()
        assert len(set(movies)) == len(movies)
        assert drawn.log_counts.exp().sum().item() == pytest.approx(6)
        expected = [[movie in rated(row) for movie in movies] for row in range(3)]
        assert drawn.is_rated.tolist() == expected
        assert drawn.of_choices.shape == (6, 50)
        assert set(drawn.of_choices.unique().tolist()) == set(range(len(movies)))


def test_warp_with_one_other_movie() -> None:
    """The rank is then 1 wherever the choice is."""
    loss = WARP(NetworkConfig(negatives=3), np.array([1, 1]), CPU)
    batch = batch_of([[]], [[0]])
    drawn = loss.draw(batch, np.random.default_rng(0))
    logits = Logits(torch.tensor([0.5]), torch.tensor([[0.5, 0.75]])[:, drawn.movies])
    found = loss.of_choices(logits, batch, drawn)
    assert found.item() in (0, 1.25)


def test_every_name_has_its_loss() -> None:
    kinds = [type(loss_of(name)) for name in CHOICE_LOSSES]
    assert kinds == [Softmax, SampledSoftmax, BPR, WARP, BCE]
