"""Ratings tables with what must not matter changed, for tests that it does not; no test itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ncf.data.splits import TEST, TRAIN, VALIDATION, Labels

Columns = dict[str, npt.NDArray[Any]]
"""Of ``ratings.parquet``."""


def permuted(values: npt.NDArray[Any], among: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """``values: [N]`` with those ``among: [N]`` in another order."""
    result, rows = values.copy(), np.flatnonzero(among)
    result[rows] = values[np.random.default_rng(3).permutation(rows)]
    return result


def oracle(columns: Columns, labels: Labels, planted: tuple[int, ...]) -> Columns:
    """Times that give the ratings of the ``planted`` splits away; of the others, permuted ones.

    So a split has the same times whether they tell something or not.
    """
    times, ratings = columns["timestamp"], columns["rating"].astype(np.float64)
    share = (ratings - ratings.min()) / np.ptp(ratings)
    telling = (times.min() + share * np.ptp(times)).astype(np.int64)
    for split in {TRAIN, VALIDATION, TEST} - set(planted):
        telling = permuted(telling, labels == split)
    return columns | {"timestamp": telling}
