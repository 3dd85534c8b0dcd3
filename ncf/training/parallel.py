"""Whether data-parallel training pays off."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from ncf.config import ExperimentConfig

SHARED_MULTIPLICATIONS: Final = 500_000_000
"""Multiplications of dense weights in a batch's forward pass below which two workers on a CPU were
slower than one: sending each other the gradients took longer than what they saved."""


def data_parallel_pays_off(experiment: ExperimentConfig) -> bool:
    """Whether several workers on CPUs are quicker than one, as far as it was measured.

    A model that learns from the user's other ratings was not measured; it does more for each row.
    """
    model = experiment.model
    if model.history.encoders:
        return True
    widths = (model.embedding_dim * len(model.inputs), *model.hidden_dims, 1)
    weights = sum(before * after for before, after in pairwise(widths))
    return experiment.train.batch_size * weights >= SHARED_MULTIPLICATIONS
