"""The generator of dropout masks, saved and restored."""

from __future__ import annotations

import torch

from ncf.training.random_state import dropout_state, set_dropout_state

CPU = torch.device("cpu")


def test_masks_go_on_where_they_were() -> None:
    torch.manual_seed(3)
    state = dropout_state(CPU)
    expected = torch.rand(5)
    set_dropout_state(state, CPU)
    assert torch.equal(torch.rand(5), expected)


def test_a_state_of_another_kind_of_device_is_left_out() -> None:
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    set_dropout_state(torch.zeros(16, dtype=torch.uint8), CPU)  # the size of a GPU's
    assert torch.equal(torch.rand(5), expected)
