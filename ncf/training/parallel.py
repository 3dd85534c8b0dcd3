"""Whether data-parallel training pays off."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from ncf.config import ExperimentConfig

SHARED_MULTIPLICATIONS: Final = 500_000_000
"""Multiplications of dense weights in a batch's forward pass below which two workers on a CPU were
slower than one: exchanging gradients took longer than the time saved."""


def data_parallel_pays_off(experiment: ExperimentConfig) -> bool:
    """Whether several workers on CPUs are faster than one, by measurements of dense networks.

    Models with history encoders were not measured; they compute more for each row.
    """
    model = experiment.model
    if model.history.encoders:
        return True
    widths = (model.embedding_dim * len(model.inputs), *model.hidden_dims, 1)
    weights = sum(before * after for before, after in pairwise(widths))
    return experiment.train.batch_size * weights >= SHARED_MULTIPLICATIONS
