"""Batches of systems against NumPy, with several threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ncf.models.linalg import inverse, solve


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("shape", [(1, 300), (5, 300), (40, 30)])
def test_each_system_is_solved(shape: tuple[int, int]) -> None:
    count, rows = shape
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(count, rows, rows))
    matrices = factors @ factors.transpose(0, 2, 1) / rows + np.eye(rows)
    right = rng.normal(size=(count, rows, 2))
    given = torch.from_numpy(matrices).float()
    found = solve(given, torch.from_numpy(right).float())
    np.testing.assert_allclose(found, np.linalg.solve(matrices, right), atol=1e-4)
    np.testing.assert_allclose(inverse(given), np.linalg.inv(matrices), atol=1e-4)
