"""Names that a configuration may use for branches, losses and baselines, and where their code is.

An implementation is given as ``module:name`` and imported only where it is used, so that reading a
configuration does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from foundation.registry import implementation

__all__ = [
    "BASELINES",
    "BRANCHES",
    "CHOICE_BASELINES",
    "CHOICE_LOSSES",
    "LOSSES",
    "RANKING_METRICS",
    "BaselineEntry",
    "LossEntry",
    "implementation",
]

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
    by_default: bool = True
    """Whether it is compared with unless a configuration says otherwise; not so if its search takes
    long and another one is as accurate."""
    package: str | None = None
    """An optional package that it needs; without it, the baseline is omitted."""
    load: str | None = None
    """``module:name`` of the function that reads what its ``save`` wrote, for one that can be a
    member of a blend."""


BASELINES: Final[dict[str, BaselineEntry]] = {
    "global-mean": BaselineEntry("ncf.baselines.bias:GLOBAL_MEAN", fits_any_size=True),
    "damped-bias": BaselineEntry("ncf.baselines.bias:DAMPED_BIAS", fits_any_size=True),
    "neighbours": BaselineEntry("ncf.baselines.neighbours:NEAREST_NEIGHBOURS"),
    "matrix-factorization": BaselineEntry(
        "ncf.baselines.matrix_factorization:MATRIX_FACTORIZATION"
    ),
    "bayesian-factorization": BaselineEntry(
        "ncf.baselines.bayesian_factorization:BAYESIAN_FACTORIZATION",
        load="ncf.baselines.bayesian_factorization:load_bayesian_factorization",
    ),
    "svdpp": BaselineEntry("ncf.baselines.svdpp:SVDPP", by_default=False),
    "time-svdpp": BaselineEntry("ncf.baselines.svdpp:TIME_SVDPP", by_default=False),
    "boosting": BaselineEntry(
        "ncf.baselines.boosting:BOOSTING",
        package="lightgbm",
        load="ncf.baselines.boosting:load_boosted_trees",
    ),
    "boosting-with-times": BaselineEntry(
        "ncf.baselines.boosting:BOOSTING_WITH_TIMES",
        package="lightgbm",
        load="ncf.baselines.boosting:load_boosted_trees",
    ),
}
"""Values of ``compare.baselines``, the simplest first."""

STACKED_MEMBERS: Final[dict[str, BaselineEntry]] = {
    "residual-boosting": BaselineEntry(
        "ncf.blending.residual_boosting:RESIDUAL_BOOSTING",
        package="lightgbm",
        load="ncf.blending.residual_boosting:load_residual_boosting",
    ),
}
"""Members of a blend that are fitted to its network's out-of-fold predictions, with their
``ncf.blending.stacking.StackedSpec``: values of ``blend.members`` beside the baselines that have
``load``."""

CHOICE_LOSSES: Final[dict[str, str]] = {
    "softmax": "ncf.training.choice.losses:Softmax",
    "sampled_softmax": "ncf.training.choice.losses:SampledSoftmax",
    "bpr": "ncf.training.choice.losses:BPR",
    "warp": "ncf.training.choice.losses:WARP",
    "bce": "ncf.training.choice.losses:BCE",
}
"""Values of ``choice.network.loss``, with the subclasses of ``ChoiceLoss``."""

RANKING_METRICS: Final[dict[str, str]] = {
    "ndcg": "ncf.evaluation.ranking_metrics:ndcg",
    "recall": "ncf.evaluation.ranking_metrics:recall",
    "map": "ncf.evaluation.ranking_metrics:average_precision",
    "hit_rate": "ncf.evaluation.ranking_metrics:hit",
    "mrr": "ncf.evaluation.ranking_metrics:reciprocal_rank",
}
"""Metrics of rankings; ``ndcg@10`` is the first of them over the first ten movies."""

CHOICE_BASELINES: Final[dict[str, BaselineEntry]] = {
    "popular": BaselineEntry("ncf.baselines.choice.popularity:POPULAR", fits_any_size=True),
    "popular-lately": BaselineEntry(
        "ncf.baselines.choice.popularity:POPULAR_LATELY", fits_any_size=True
    ),
    "item-knn": BaselineEntry("ncf.baselines.choice.item_knn:ITEM_KNN"),
    "bpr": BaselineEntry("ncf.baselines.choice.bpr:BPR"),
    "ials": BaselineEntry("ncf.baselines.choice.ials:IALS"),
    "ease": BaselineEntry("ncf.baselines.choice.ease:EASE"),
    "ease-with-values": BaselineEntry("ncf.baselines.choice.ease:EASE_WITH_VALUES"),
}
"""Values of ``compare.choice.baselines``, the simplest first."""
