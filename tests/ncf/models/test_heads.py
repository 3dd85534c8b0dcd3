from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ncf.data.preprocessor import Preprocessor
from ncf.models.heads import OrdinalHead, nearest_level, rating_levels
from ncf.training.losses import get_loss


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def test_levels_are_half_a_star_apart(preprocessor: Preprocessor) -> None:
    assert rating_levels(preprocessor).tolist() == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]
    whole = replace(preprocessor, rating_min=1.0, rating_max=2.0)
    assert rating_levels(whole).tolist() == [1.0, 1.5, 2.0]


def test_probabilities_by_hand(preprocessor: Preprocessor) -> None:
    head = OrdinalHead(replace(preprocessor, rating_min=1.0, rating_max=2.5)).double()
    with torch.no_grad():
        head.first.fill_(1.3)
        head.gaps.copy_(torch.tensor([0.0, 1.0]))  # softplus: log 2, log(1 + e)
        head.log_scale.fill_(np.log(0.7))
        found = head(torch.tensor([1.6, -3.0, 30.0]).double()).exp().numpy()
        mean = head.expectation(head(torch.tensor([1.6]).double())).item()
    thresholds = np.cumsum([1.3, np.log(2), np.log(1 + np.e)])
    below = [0.0, *(sigmoid((t - 1.6) / 0.7) for t in thresholds), 1.0]
    expected = np.diff(below)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-6)
    assert mean == pytest.approx(expected @ [1.0, 1.5, 2.0, 2.5])


def test_it_starts_with_thresholds_between_the_levels(preprocessor: Preprocessor) -> None:
    head = OrdinalHead(preprocessor)
    expected = torch.arange(0.75, 5.0, 0.5)
    torch.testing.assert_close(head.thresholds.detach(), expected)
    with torch.no_grad():
        middle = torch.tensor([1.5, 2.0, 3.0, 4.0])
        assert torch.allclose(head.expectation(head(middle)), middle, atol=0.05)


@pytest.mark.parametrize("number", [-40.0, 0.5, 3.0, 60.0])
def test_extreme_numbers_have_finite_logarithms_and_gradients(
    preprocessor: Preprocessor, number: float
) -> None:
    head = OrdinalHead(preprocessor)
    numbers = torch.full((10,), number, requires_grad=True)
    get_loss("nll").weighted_sum(head(numbers), torch.arange(10), torch.ones(10)).backward()
    assert numbers.grad is not None
    assert numbers.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_a_single_level_is_certain(preprocessor: Preprocessor) -> None:
    head = OrdinalHead(replace(preprocessor, rating_min=4.0, rating_max=4.0))
    outputs = head(torch.tensor([1.0, 9.0]))
    assert outputs.tolist() == [[0.0], [0.0]]
    assert head.expectation(outputs).tolist() == [4.0, 4.0]


def test_ratings_belong_to_the_nearest_level() -> None:
    levels = torch.tensor([0.5, 1.0, 1.5])
    ratings = torch.tensor([0.0, 0.5, 0.7, 0.8, 1.0, 1.4, 7.0])
    assert nearest_level(levels, ratings).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_the_likelihood_is_weighted_by_row() -> None:
    probabilities = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    levels = torch.tensor([1, 0, 1])
    weights = torch.tensor([1.0, 2.0, 0.5])
    expected = -(np.log(0.8) + 2 * np.log(0.5) + 0.5 * np.log(0.1))
    assert get_loss("nll").weighted_sum(
        probabilities.log(), levels, weights
    ).item() == pytest.approx(expected, rel=1e-6)
