"""Batches of linear systems, with a way around a fault of PyTorch on CPUs.

With several threads and MKL, torch 2.13's ``linalg.solve`` and ``linalg.inv`` return wrong results,
at times with an exception about pivots, for several matrices of about 150 rows or more at once. One
matrix at a time, and smaller ones, are right, and give the same bits as a batch with one thread.
"""

from __future__ import annotations

from typing import Final

import torch

LARGEST_IN_BATCHES: Final = 128
"""Rows of a matrix up to which a batch is processed at once."""


def solve(matrices: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``[C, L, L], [C, L, K] -> [C, L, K]``: each matrix's inverse times its right-hand side."""
    if _is_right_in_batches(matrices):
        return torch.linalg.solve(matrices, right)
    return torch.stack([torch.linalg.solve(*pair) for pair in zip(matrices, right, strict=True)])


def inverse(matrices: torch.Tensor) -> torch.Tensor:
    """``[C, L, L] -> [C, L, L]``."""
    if _is_right_in_batches(matrices):
        return torch.linalg.inv(matrices)
    return torch.stack([torch.linalg.inv(matrix) for matrix in matrices])


def _is_right_in_batches(matrices: torch.Tensor) -> bool:
    count, rows, _ = matrices.shape
    return count == 1 or rows <= LARGEST_IN_BATCHES or matrices.device.type != "cpu"
