"""Against torch's own AdamW, unfused."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from ncf.training.optimizer import AdamW


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_torch_also_where_a_gradient_is_missing(decay: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    twin = deepcopy(model)
    ours = AdamW(list(model.parameters()), 0.01, decay)
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=decay, foreach=False)
    for number in range(6):
        inputs = torch.randn(4, 3)
        for network in (model, twin):
            network.zero_grad(set_to_none=True)
            # The second layer takes no part in every third step.
            part = network if number % 3 else network[0]
            part(inputs).square().sum().backward()
        ours.lr = theirs.param_groups[0]["lr"] = 0.01 / (number + 1)
        ours.step()
        theirs.step()
    for found, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert ours.steps.tolist() == [6, 6, 4, 4]


def test_zero_grad_drops_gradients() -> None:
    layer = nn.Linear(2, 1)
    optimizer = AdamW(list(layer.parameters()), 0.1, 0.0)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.zero_grad()
    before = [p.detach().clone() for p in layer.parameters()]
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(layer.parameters(), before, strict=True))
