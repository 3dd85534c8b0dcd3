"""Names that a configuration may use for branches, losses and baselines, and where their code is.

An implementation is given as ``module:name`` and imported only where it is used, so that reading a
configuration does not import torch.
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
"""Values of ``model.inputs``, with the subclasses of ``Branch``."""


@dataclass(frozen=True)
class LossEntry:
    """What a configuration needs to know about a loss."""

    implementation: str
    """``module:name`` of the loss of single rows."""
    compares: Literal["rating", "distribution"] = "rating"
    """``rating``: the expected rating with the target, both ``[B]``; ``distribution``: logarithms
    of the levels' probabilities ``[B, K]`` with the target's level ``[B]``, which requires
    ``model.head = "ordinal"``."""


LOSSES: Final[dict[str, LossEntry]] = {
    "mse": LossEntry("ncf.training.losses:mse"),
    "l1": LossEntry("ncf.training.losses:l1"),
    "smooth_l1": LossEntry("ncf.training.losses:smooth_l1"),
    "nll": LossEntry("ncf.training.losses:nll", compares="distribution"),
}
"""Values of ``train.loss``."""


@dataclass(frozen=True)
class BaselineEntry:
    """What a configuration needs to know about a baseline."""

    implementation: str
    """``module:name`` of its ``ncf.baselines.base.BaselineSpec``."""
    fits_any_size: bool = False
    """Whether it can be fitted to any number of rows; other baselines are omitted above
    ``ncf.baselines.LARGEST``."""
    package: str | None = None
    """An optional package that it needs; without it, the baseline is omitted."""


BASELINES: Final[dict[str, BaselineEntry]] = {
    "global-mean": BaselineEntry("ncf.baselines.bias:GLOBAL_MEAN", fits_any_size=True),
    "damped-bias": BaselineEntry("ncf.baselines.bias:DAMPED_BIAS", fits_any_size=True),
    "neighbours": BaselineEntry("ncf.baselines.neighbours:NEAREST_NEIGHBOURS"),
    "matrix-factorization": BaselineEntry(
        "ncf.baselines.matrix_factorization:MATRIX_FACTORIZATION"
    ),
    "boosting": BaselineEntry("ncf.baselines.boosting:BOOSTING", package="lightgbm"),
    "boosting-with-times": BaselineEntry(
        "ncf.baselines.boosting:BOOSTING_WITH_TIMES", package="lightgbm"
    ),
}
"""Values of ``compare.baselines``, the simplest first."""
