"""Named feature columns, and the out-of-fold rule that keeps a row from seeing its own rating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ncf.data.batches import Batch
from ncf.data.preprocessor import Floats

Features = Callable[[Batch, Batch], "FeatureTable"]
"""``features(history, rows)``: one line for each of ``rows``, made from the ratings in ``history``.

Of ``rows`` only users, movies and times are used, never the ratings.
"""


@dataclass(frozen=True)
class FeatureTable:
    """Features of rows."""

    names: tuple[str, ...]
    """``[F]`` a name for every column."""
    values: npt.NDArray[np.float32]
    """``[B, F]``, NaN where there is nothing to tell."""

    @classmethod
    def of(cls, columns: Sequence[tuple[str, Floats]]) -> FeatureTable:
        """From named columns ``[B]``."""
        values = np.column_stack([values for _, values in columns])
        return cls(tuple(name for name, _ in columns), values.astype(np.float32))

    def beside(self, other: FeatureTable) -> FeatureTable:
        """The columns of both."""
        return FeatureTable(self.names + other.names, np.column_stack([self.values, other.values]))


def out_of_fold(
    rows: Batch, recommender: Batch, features: Features, folds: int, seed: int
) -> FeatureTable:
    """Features of training rows, each fold's made from the ratings of all other folds.

    ``recommender`` are the same rows as they shall be described, such as with some users hidden.

    So no row's own rating takes part in its features. Leaving out only the row itself would not
    do: within one movie the mean of the others falls as the own rating rises, and trees that
    recognise the movie would learn to read the rating off it.
    """
    fold = np.random.default_rng(seed).permutation(len(rows)) % folds
    parts, order = [], []
    for number in range(min(folds, len(rows))):
        inside = torch.from_numpy(fold == number)
        parts.append(features(rows[~inside], recommender[inside]))
        order.append(np.flatnonzero(fold == number))
    values = np.concatenate([part.values for part in parts])
    return FeatureTable(parts[0].names, values[np.argsort(np.concatenate(order))])
