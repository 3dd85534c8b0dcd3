"""Paired bootstrap over users: test differences between models' errors on the same rows.

Rows of one user are correlated, so whole users are drawn with replacement, not single rows. All
models are scored on the same draws, so variation that is common to all models cancels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

Metric = Literal["rmse", "mae"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_ALPHA: Final = 0.05
"""Maximum probability of declaring one of several equal models better."""

_WEIGHTS_AT_ONCE: Final = 4_000_000
"""Users times resamples held in memory at once."""


@dataclass(frozen=True)
class UserErrors:
    """One model's errors on a set of rows, summed by user, for each of its S training seeds."""

    name: str
    counts: Floats
    """``[U]`` rows of each user."""
    squared: Floats
    """``[S, U]`` sums of squared errors."""
    absolute: Floats
    """``[S, U]`` sums of absolute errors."""

    @classmethod
    def of(
        cls, name: str, users: Integers, num_users: int, errors: Iterable[npt.ArrayLike]
    ) -> UserErrors:
        """Sum the ``errors: [N]`` of each seed by ``users: [N]``, numbered from 0."""

        def by_user(values: Floats) -> Floats:
            return np.bincount(users, values, num_users).astype(np.float64)

        sums = []
        for of_seed in errors:
            error = np.asarray(of_seed, dtype=np.float64)
            sums.append((by_user(error * error), by_user(np.abs(error))))
        return cls(
            name=name,
            counts=np.bincount(users, minlength=num_users).astype(np.float64),
            squared=np.stack([squared for squared, _ in sums]),
            absolute=np.stack([absolute for _, absolute in sums]),
        )

    @classmethod
    def together(cls, parts: Sequence[UserErrors]) -> UserErrors:
        """Combine one model's errors on several sets of rows.

        All ``parts`` use the same numbering of users and have equally many seeds; the first seeds
        of all parts are combined, then the second ones, and so on.
        """
        return cls(
            name=parts[0].name,
            counts=np.sum([part.counts for part in parts], axis=0),
            squared=np.sum([part.squared for part in parts], axis=0),
            absolute=np.sum([part.absolute for part in parts], axis=0),
        )

    @property
    def num_seeds(self) -> int:
        """Number of training seeds."""
        return len(self.squared)


@dataclass(frozen=True)
class Resampled:
    """One metric of M models, each averaged over its seeds."""

    observed: Floats
    """``[M]`` metric on the original users."""
    draws: Floats
    """``[R, M]`` metric on each resample."""


@dataclass(frozen=True)
class PairedDifference:
    """A metric of one model minus that of another, for the same users."""

    first: str
    second: str
    metric: str
    value: float
    low: float
    """Lower end of the 95 % interval of this comparison alone."""
    high: float
    """Upper end of it."""
    p: float
    """Two-sided p-value of no difference."""
    corrected_low: float
    """Lower end of the simultaneous 95 % interval for all comparisons of the family
    (Bonferroni)."""
    corrected_high: float
    """Upper end of it."""
    holm_p: float
    """p-value corrected for the size of the family, by Holm's method."""

    @property
    def is_clear(self) -> bool:
        """Whether the corrected interval and Holm's p agree that there is a difference."""
        return self.holm_p < _ALPHA and not self.corrected_low <= 0 <= self.corrected_high


@dataclass(frozen=True)
class Difference(PairedDifference):
    """A metric of one model minus that of another; below 0 if the first has lower errors."""

    metric: Metric

    @property
    def better(self) -> str | None:
        """The model with lower errors; None unless the corrected interval and Holm's p agree."""
        if not self.is_clear:
            return None
        return self.first if self.value < 0 else self.second


AnyDifference = TypeVar("AnyDifference", bound=PairedDifference)


def resample(
    models: Sequence[UserErrors],
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    vary_seeds: bool = False,
) -> dict[Metric, Resampled]:
    """Draw users with replacement, the same for all models and all their seeds.

    Args:
        models: errors on the same rows.
        num_resamples: R, the number of draws.
        seed: seed of the generator; the same seed gives the same results.
        vary_seeds: add the variation over training seeds, so that results apply to the method
            and not only to the models of these seeds.

    Raises:
        ValueError: if there are fewer than two users.
    """
    num_users = len(models[0].counts)
    if num_users < 2:
        raise ValueError(f"a bootstrap over users needs at least two of them, found {num_users}")
    generator = np.random.default_rng(seed)
    # [1 + K, U]: rows of each user, then every model's and seed's sums.
    sums = np.concatenate(
        [models[0].counts[None], *(m.squared for m in models), *(m.absolute for m in models)]
    )
    drawn = np.concatenate(
        [weights @ sums.T for weights in user_weights(generator, num_users, num_resamples)]
    )
    num_columns = (len(sums) - 1) // 2
    means = drawn[:, 1:] / drawn[:, :1]
    observed = sums[1:].sum(axis=1) / sums[0].sum()
    seeds = [m.num_seeds for m in models]
    seeds_generator = generator if vary_seeds else None
    squared, absolute = slice(None, num_columns), slice(num_columns, None)
    return {
        "rmse": average_seeds(
            np.sqrt(observed[squared]), np.sqrt(means[:, squared]), seeds, seeds_generator
        ),
        "mae": average_seeds(observed[absolute], means[:, absolute], seeds, seeds_generator),
    }


def user_weights(
    generator: np.random.Generator, num_users: int, num_resamples: int
) -> Iterable[Floats]:
    """Number of draws of each user, in chunks ``[C, U]``; C adds up to ``num_resamples``."""
    chunk = max(1, _WEIGHTS_AT_ONCE // num_users)
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        users = generator.integers(0, num_users, size=(size, num_users))
        users += np.arange(size)[:, None] * num_users
        counts = np.bincount(users.ravel(), minlength=size * num_users)
        yield counts.reshape(size, num_users).astype(np.float64)


def average_seeds(
    observed: Floats, draws: Floats, seeds: Sequence[int], generator: np.random.Generator | None
) -> Resampled:
    """Average ``observed: [K]`` and ``draws: [R, K]`` over each model's seeds.

    With a ``generator``, add the variation over seeds to the draws.
    """
    ends = np.cumsum(seeds)
    of_models = [slice(end - size, end) for end, size in zip(ends, seeds, strict=True)]
    averages = np.stack([draws[:, columns].mean(axis=1) for columns in of_models], axis=1)
    if generator is not None:
        averages += _of_other_seeds(
            [observed[columns] for columns in of_models], averages, generator
        )
    return Resampled(np.array([observed[columns].mean() for columns in of_models]), averages)


def _of_other_seeds(
    observed: Sequence[Floats], like: Floats, generator: np.random.Generator
) -> Floats:
    """``[R, M]`` deviations of the means over seeds, with a variance common to all models.

    Drawing three or five seeds with replacement would underestimate their variance. With these
    deviations, the difference of two models follows Student's t distribution.
    """
    several = [values for values in observed if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return np.zeros_like(like)
    variance = sum(float(((values - values.mean()) ** 2).sum()) for values in several) / freedom
    scale = np.sqrt(variance * freedom / generator.chisquare(freedom, size=(len(like), 1)))
    # Models with one seed do not vary: some baselines are deterministic.
    size = [1 / math.sqrt(len(values)) if len(values) > 1 else 0.0 for values in observed]
    deviations: Floats = scale * generator.standard_normal(like.shape) * size
    return deviations


def differences(
    models: Sequence[UserErrors],
    pairs: Sequence[tuple[str, str]],
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    vary_seeds: bool = False,
) -> tuple[Difference, ...]:
    """Compare RMSE and MAE of each pair; all comparisons form one family.

    Args:
        models: errors of the models, with distinct names.
        pairs: names of the first and the second model of each comparison.
        num_resamples: see ``resample``.
        seed: see ``resample``.
        vary_seeds: see ``resample``.
    """
    if not pairs:
        return ()
    named = {name for pair in pairs for name in pair}
    # The variance over seeds is pooled over models, so models in no pair must not take part.
    models = [model for model in models if model.name in named]
    figures = resample(models, num_resamples=num_resamples, seed=seed, vary_seeds=vary_seeds)
    return compare_pairs(Difference, pairs, figures.items(), [model.name for model in models])


def compare_pairs(
    kind: type[AnyDifference],
    pairs: Sequence[tuple[str, str]],
    figures: Collection[tuple[str, Resampled]],
    names: Sequence[str],
) -> tuple[AnyDifference, ...]:
    """Compare each metric of each pair; all comparisons form one family.

    Args:
        kind: class of the differences.
        pairs: names of the first and the second model of each comparison.
        figures: name and values of each metric.
        names: ``[M]`` of the models, in the order of the figures.
    """
    size = len(figures) * len(pairs)
    found = [
        _difference(
            kind, (first, second), metric, values, (names.index(first), names.index(second)), size
        )
        for first, second in pairs
        for metric, values in figures
    ]
    corrected = holm([difference.p for difference in found])
    return tuple(
        replace(difference, holm_p=p) for difference, p in zip(found, corrected, strict=True)
    )


def _difference(
    kind: type[AnyDifference],
    pair: tuple[str, str],
    metric: str,
    figures: Resampled,
    positions: tuple[int, int],
    family: int,
) -> AnyDifference:
    one, other = positions
    draws = figures.draws[:, one] - figures.draws[:, other]
    low, high = _interval(draws, _ALPHA)
    corrected_low, corrected_high = _interval(draws, _ALPHA / family)
    p = _p_value(draws)
    return kind(
        first=pair[0],
        second=pair[1],
        metric=metric,
        value=float(figures.observed[one] - figures.observed[other]),
        low=low,
        high=high,
        p=p,
        corrected_low=corrected_low,
        corrected_high=corrected_high,
        holm_p=p,
    )


def _interval(draws: Floats, alpha: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def _p_value(draws: Floats) -> float:
    """Twice the share of draws on the other side of 0, with 1 added to both counts to avoid 0."""
    other_side = min((draws <= 0).sum(), (draws >= 0).sum())
    return min(1.0, 2 * (1 + int(other_side)) / (1 + len(draws)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values, in the same order.

    S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statistics 6, 1979.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = largest
    return corrected
