from __future__ import annotations

import pytest
import torch

from ncf.config import LossName
from ncf.training.losses import get_loss

PREDICTIONS = torch.tensor([3.0, 4.5, 1.0, 2.0])
TARGETS = torch.tensor([3.5, 2.5, 1.0, 5.0])
# Errors 0.5, 2, 0 and 3; SmoothL1 is half their square below one star, else |error| - 1/2.
BY_HAND: list[tuple[LossName, list[float]]] = [
    ("mse", [0.25, 4.0, 0.0, 9.0]),
    ("l1", [0.5, 2.0, 0.0, 3.0]),
    ("smooth_l1", [0.125, 1.5, 0.0, 2.5]),
]


@pytest.mark.parametrize(("name", "expected"), BY_HAND)
def test_row_losses_by_hand(name: LossName, expected: list[float]) -> None:
    assert torch.equal(get_loss(name).of_rows(PREDICTIONS, TARGETS), torch.tensor(expected))
    assert torch.equal(get_loss(name).of_rows(TARGETS, PREDICTIONS), torch.tensor(expected))


@pytest.mark.parametrize(("name", "expected"), BY_HAND)
def test_the_weighted_sum_by_hand(name: LossName, expected: list[float]) -> None:
    weights = torch.tensor([1.0, 0.5, 7.0, 0.0])
    total = get_loss(name).weighted_sum(PREDICTIONS, TARGETS, weights)
    assert total.shape == ()
    assert total.item() == pytest.approx(expected[0] + 0.5 * expected[1])


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mse", torch.nn.MSELoss()),
        ("l1", torch.nn.L1Loss()),
        ("smooth_l1", torch.nn.SmoothL1Loss()),
    ],
)
def test_with_equal_weights_the_mean_is_torchs(name: LossName, reference: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    predictions, targets = 5 * torch.rand(2, 1000, generator=generator)
    mean = get_loss(name).weighted_sum(predictions, targets, torch.ones(1000)) / 1000
    torch.testing.assert_close(mean, reference(predictions, targets))


def test_the_sum_over_parts_is_the_sum_over_all() -> None:
    weights = torch.tensor([0.25, 0.5, 1.0, 2.0])
    whole = get_loss("l1").weighted_sum(PREDICTIONS, TARGETS, weights)
    first = get_loss("l1").weighted_sum(PREDICTIONS[:1], TARGETS[:1], weights[:1])
    rest = get_loss("l1").weighted_sum(PREDICTIONS[1:], TARGETS[1:], weights[1:])
    assert (first + rest).item() == whole.item() == 0.125 + 1 + 0 + 6


@pytest.mark.parametrize("name", ["mse", "l1", "smooth_l1"])
def test_no_rows_sum_to_zero_and_can_be_differentiated(name: LossName) -> None:
    predictions = torch.zeros(0, requires_grad=True)
    total = get_loss(name).weighted_sum(predictions, torch.zeros(0), torch.zeros(0))
    total.backward()
    assert total.item() == 0
