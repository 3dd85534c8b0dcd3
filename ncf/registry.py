"""Names that a configuration may use for branches and losses, and where their code is.

An implementation is given as ``module:name`` and imported only where a model is built, so that
reading a configuration does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from foundation.registry import implementation

__all__ = ["BRANCHES", "LOSSES", "LossEntry", "implementation"]

BRANCHES: Final[dict[str, str]] = {
    "user": "ncf.models.branches.entities:UserEmbedding",
    "movie": "ncf.models.branches.entities:MovieEmbedding",
    "genres": "ncf.models.branches.content:GenreAverage",
    "decade": "ncf.models.branches.content:DecadeEmbedding",
    "numeric": "ncf.models.branches.content:NumericProjection",
    "time": "ncf.models.branches.times:TimeFeatures",
    "directors": "ncf.models.branches.content:DirectorsAverage",
    "cast": "ncf.models.branches.content:CastAverage",
    "keywords": "ncf.models.branches.content:KeywordsAverage",
}
"""Values of ``model.inputs``, each with its subclass of ``Branch``."""


@dataclass(frozen=True)
class LossEntry:
    """What a configuration has to know of a loss."""

    implementation: str
    """``module:name`` of the loss of single rows."""
    compares: Literal["rating", "distribution"] = "rating"
    """``rating``: the expected rating with the target, both ``[B]``; ``distribution``: logarithms
    of the levels' probabilities ``[B, K]`` with the target's level ``[B]``, which needs
    ``model.head = "ordinal"``."""


LOSSES: Final[dict[str, LossEntry]] = {
    "mse": LossEntry("ncf.training.losses:mse"),
    "l1": LossEntry("ncf.training.losses:l1"),
    "smooth_l1": LossEntry("ncf.training.losses:smooth_l1"),
    "nll": LossEntry("ncf.training.losses:nll", compares="distribution"),
}
"""Values of ``train.loss``."""
