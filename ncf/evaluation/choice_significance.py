"""Paired bootstrap over users of differences between choice models' rankings.

See ``ncf.evaluation.significance``, which this uses for metrics that are means over users, and
more of which is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ncf.evaluation.significance import (
    PairedDifference,
    Resampled,
    average_seeds,
    compare_pairs,
    user_weights,
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class UserValues:
    """One model's values of a metric for U users, for each of its S training seeds."""

    name: str
    values: Floats
    """``[S, U]``; NaN for users without a relevant movie."""

    @property
    def num_seeds(self) -> int:
        """Number of training seeds."""
        return len(self.values)


@dataclass(frozen=True)
class ChoiceDifference(PairedDifference):
    """A metric of one model minus that of another; above 0 if the first ranks better."""

    @property
    def better(self) -> str | None:
        """The model with higher values; None unless the corrected interval and Holm's p agree."""
        if not self.is_clear:
            return None
        return self.first if self.value > 0 else self.second


def choice_differences(
    models: Sequence[UserValues],
    pairs: Sequence[tuple[str, str]],
    metric: str,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    vary_seeds: bool = False,
) -> tuple[ChoiceDifference, ...]:
    """Compare the means over users of each pair; all comparisons form one family.

    Args:
        models: values of the same users, with distinct names.
        pairs: names of the first and the second model of each comparison.
        metric: name of the metric, such as ``ndcg@10``.
        num_resamples: number of draws.
        seed: seed of the generator; the same seed gives the same results.
        vary_seeds: add the variation over training seeds, so that results apply to the method
            and not only to the models of these seeds.

    Raises:
        ValueError: if models have values of different users, or of fewer than two.
    """
    if not pairs:
        return ()
    named = {name for pair in pairs for name in pair}
    # The variance over seeds is pooled over models, so models in no pair must not take part.
    models = [model for model in models if model.name in named]
    figures = resample_means(models, num_resamples=num_resamples, seed=seed, vary_seeds=vary_seeds)
    names = [model.name for model in models]
    return compare_pairs(ChoiceDifference, pairs, [(metric, figures)], names)


def num_scored_users(models: Sequence[UserValues]) -> int:
    """How many users have values; ``choice_differences`` needs two.

    Raises:
        ValueError: if models have values of different users.
    """
    return _of_scored_users(models).shape[1]


def resample_means(
    models: Sequence[UserValues],
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    vary_seeds: bool = False,
) -> Resampled:
    """Draw users with replacement, the same for all models and all their seeds.

    Users without values are left out before. See ``choice_differences`` for arguments and errors.
    """
    values = _of_scored_users(models)
    num_users = values.shape[1]
    if num_users < 2:
        raise ValueError(
            "a bootstrap over users needs at least two of them who have a relevant movie, found "
            f"{num_users}"
        )
    generator = np.random.default_rng(seed)
    weights = user_weights(generator, num_users, num_resamples)
    draws = np.concatenate([counts @ values.T for counts in weights]) / num_users
    seeds = [model.num_seeds for model in models]
    return average_seeds(values.mean(axis=1), draws, seeds, generator if vary_seeds else None)


def _of_scored_users(models: Sequence[UserValues]) -> Floats:
    """``[K, V]`` values of every model's and seed's V users who have one."""
    if len({model.values.shape[1] for model in models}) == 1:
        values = np.concatenate([model.values for model in models])
        is_missing = np.isnan(values)
        if (is_missing == is_missing[0]).all():
            return values[:, ~is_missing[0]]
    raise ValueError(
        "models have values of different users, expected the same users for all models and seeds; "
        "score them on the same held-out ratings"
    )
