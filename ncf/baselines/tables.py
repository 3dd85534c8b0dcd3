"""Named feature columns, and out-of-fold features that exclude each row's own rating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ncf.data.batches import Batch
from ncf.data.preprocessor import Floats

Features = Callable[[Batch, Batch], "FeatureTable"]
"""``features(history, rows)``: features of each of ``rows``, from the ratings in ``history``.

Only users, movies and times of ``rows`` are used, never the ratings.
"""


@dataclass(frozen=True)
class FeatureTable:
    """Features of rows."""

    names: tuple[str, ...]
    """``[F]`` names of the columns."""
    values: npt.NDArray[np.float32]
    """``[B, F]``, NaN where there is no value."""

    @classmethod
    def of(cls, columns: Sequence[tuple[str, Floats]]) -> FeatureTable:
        """A table of named columns ``[B]``."""
        values = np.column_stack([values for _, values in columns])
        return cls(tuple(name for name, _ in columns), values.astype(np.float32))

    def beside(self, other: FeatureTable) -> FeatureTable:
        """The columns of both."""
        return FeatureTable(self.names + other.names, np.column_stack([self.values, other.values]))


def out_of_fold(
    rows: Batch, described: Batch, features: Features, folds: int, seed: int
) -> FeatureTable:
    """Features of training rows, each fold's computed from the ratings of all other folds.

    Thus no row's own rating affects its features. Leaving out only the row itself is not enough:
    within one movie the mean of the others decreases as the row's rating increases, and trees that
    recognise the movie would learn to infer the rating from it.

    Args:
        rows: the training rows.
        described: the same rows as they are described, for example with hidden users.
        features: computes the features.
        folds: number of folds.
        seed: seed of the random folds.
    """
    fold = np.random.default_rng(seed).permutation(len(rows)) % folds
    parts, order = [], []
    for number in range(min(folds, len(rows))):
        inside = torch.from_numpy(fold == number)
        parts.append(features(rows[~inside], described[inside]))
        order.append(np.flatnonzero(fold == number))
    values = np.concatenate([part.values for part in parts])
    return FeatureTable(parts[0].names, values[np.argsort(np.concatenate(order))])
