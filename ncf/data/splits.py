"""Training, validation and test labels for rating rows.

Each function returns ``labels: [N] int8``, holding positions in ``SPLITS``, for rows in file order.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from ncf.config import SplitConfig
from ncf.errors import DataError

SPLITS: Final = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)

_LABELS: Final = np.array([TRAIN, VALIDATION, TEST], dtype=np.int8)

Labels = npt.NDArray[np.int8]
Integers = npt.NDArray[np.int64]


def assign(config: SplitConfig, users: Integers, timestamps: Integers) -> Labels:
    """Label every row; ``users: [N]`` and ``timestamps: [N]`` are in file order.

    Raises:
        DataError: if the training or test split, or a requested validation split, would be empty,
            or a split by time is to be made of ratings without times.
    """
    if config.kind == "random":
        return assign_at_random(config, len(users))
    if len(timestamps) > 1 and timestamps.min() == timestamps.max():
        raise DataError(
            f"all {len(timestamps):,} ratings have the same time, so that split.kind = "
            f'"{config.kind}" cannot know which came later. Use split.kind = "random".'
        )
    if config.kind == "global-time":
        labels = _global_time(config, timestamps)
    else:
        labels = _per_user_time(config, users, timestamps)
    refuse_empty(labels, config)
    return labels


def assign_at_random(config: SplitConfig, num_rows: int) -> Labels:
    """Label ``num_rows`` rows for the random split, which depends only on their number.

    Raises:
        DataError: as ``assign``.
    """
    labels = _random(config, num_rows)
    refuse_empty(labels, config)
    return labels


def fold_validation_into_training(labels: Labels) -> Labels:
    """Labels for the final model, in which validation rows are training rows."""
    return np.where(labels == VALIDATION, np.int8(TRAIN), labels)


def _random(config: SplitConfig, num_rows: int) -> Labels:
    labels = np.zeros(num_rows, dtype=np.int8)
    if math.ceil(config.test * num_rows) >= num_rows:
        return labels  # refuse_empty has the message; scikit-learn would raise its own
    # Imported here because it takes a second, and workers that prepare ratings import this module
    # without calling this function.
    from sklearn.model_selection import ShuffleSplit

    # The same draw as train_test_split, which would also copy the rows.
    shuffle = ShuffleSplit(n_splits=1, test_size=config.test, random_state=config.seed)
    rest, test = next(shuffle.split(labels))
    labels[test] = TEST
    # The rest is already shuffled, so its first rows are a random sample.
    labels[rest[: round(config.validation * num_rows)]] = VALIDATION
    return labels


def _global_time(config: SplitConfig, timestamps: Integers) -> Labels:
    """Cut at two moments; ratings of the same second stay together."""
    ordered = np.sort(timestamps)
    num_rows = len(ordered)
    labels = np.zeros(num_rows, dtype=np.int8)
    if num_rows == 0:
        return labels
    first_test = ordered[num_rows - max(1, round(config.test * num_rows))]
    labels[timestamps >= first_test] = TEST
    num_validation = round(config.validation * num_rows)
    older = ordered[ordered < first_test]
    if num_validation and len(older):
        first_validation = older[max(0, len(older) - num_validation)]
        labels[(timestamps >= first_validation) & (timestamps < first_test)] = VALIDATION
    return labels


def _per_user_time(config: SplitConfig, users: Integers, timestamps: Integers) -> Labels:
    """The newest rows of each user; rows of the same second in file order."""
    order = np.lexsort((timestamps, users))
    sorted_users = users[order]
    starts = np.flatnonzero(np.r_[True, sorted_users[1:] != sorted_users[:-1]])[: len(users)]
    counts = np.diff(np.r_[starts, len(users)])
    num_test = np.round(config.test * counts).astype(np.int64)
    num_held_out = np.round((config.test + config.validation) * counts).astype(np.int64)
    # From old to new, a user's rows are training, validation and test rows.
    runs = np.stack([counts - num_held_out, num_held_out - num_test, num_test], axis=1)
    labels = np.empty(len(users), dtype=np.int8)
    labels[order] = np.repeat(np.tile(_LABELS, len(counts)), runs.ravel())
    return labels


def refuse_empty(labels: Labels, config: SplitConfig) -> None:
    """Check that every requested split has rows.

    Raises:
        DataError: if one is empty.
    """
    counts = np.bincount(labels, minlength=len(SPLITS))
    wanted = [TRAIN, TEST] + ([VALIDATION] if config.validation else [])
    for split in wanted:
        if counts[split] == 0:
            raise DataError(
                f"the {SPLITS[split]} split is empty: {len(labels)} ratings were divided into "
                f"{counts[TRAIN]} training, {counts[VALIDATION]} validation and {counts[TEST]} "
                "test rows. Use more ratings, or another split.kind, split.test or "
                "split.validation."
            )
