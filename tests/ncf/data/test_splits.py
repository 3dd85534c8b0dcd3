from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from ncf.config import SplitConfig
from ncf.data.splits import SPLITS, TEST, TRAIN, VALIDATION, assign, fold_validation_into_training
from ncf.errors import DataError


def labels_of(users: list[int], timestamps: list[int], **settings: Any) -> list[int]:
    config = SplitConfig(**settings)
    labels = assign(config, np.array(users, np.int64), np.array(timestamps, np.int64))
    assert labels.dtype == np.int8
    return labels.tolist()


def test_the_labels_name_the_splits() -> None:
    assert (SPLITS[TRAIN], SPLITS[VALIDATION], SPLITS[TEST]) == ("train", "validation", "test")


@pytest.mark.parametrize(("rows", "test", "seed"), [(1003, 0.2, 42), (50, 0.3, 0), (11, 0.1, 7)])
def test_random_test_rows_are_those_of_scikit_learn(rows: int, test: float, seed: int) -> None:
    labels = np.array(labels_of([1] * rows, [0] * rows, test=test, validation=0.1, seed=seed))
    _, expected = train_test_split(np.arange(rows), test_size=test, random_state=seed)
    assert set(np.flatnonzero(labels == TEST)) == set(expected)


def test_random_validation_is_a_share_of_all_rows_and_not_the_first_ones() -> None:
    labels = np.array(labels_of([1] * 1003, [0] * 1003, test=0.2, validation=0.1))
    assert np.bincount(labels).tolist() == [702, 100, 201]
    validation = np.flatnonzero(labels == VALIDATION)
    # Uniform over 0..1002, so their mean is 501 with a standard error of 29.
    assert 400 < validation.mean() < 600
    assert len(np.unique(validation // 251)) == 4


def test_random_rows_change_with_the_seed_and_only_with_it() -> None:
    first, again, other = (labels_of([1] * 200, [0] * 200, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_without_validation_no_row_is_held_out_for_it() -> None:
    for kind in ("random", "global-time", "per-user-time"):
        labels = labels_of([1] * 10, list(range(10)), kind=kind, test=0.2, validation=0)
        assert np.bincount(labels).tolist() == [8, 0, 2]


def test_global_time_by_hand_keeps_equal_timestamps_together() -> None:
    timestamps = [50, 10, 40, 20, 30, 40, 60, 10, 30, 20]
    # Three test rows are wanted: 60, 50 and one of the 40s, so the other 40 comes along.
    # One validation row is wanted from what is left: one of the 30s, so both.
    labels = labels_of([1] * 10, timestamps, kind="global-time", test=0.3, validation=0.1)
    assert labels == [2, 0, 2, 0, 1, 2, 2, 0, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_global_time_splits_follow_each_other_in_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    timestamps = rng.integers(0, 60, 300)
    labels = np.array(labels_of([1] * 300, timestamps.tolist(), kind="global-time"))
    train, validation, test = (timestamps[labels == split] for split in (TRAIN, VALIDATION, TEST))
    assert train.max() < validation.min()
    assert validation.max() < test.min()
    # Ties may add rows to a split, up to those of one second, and never take any.
    assert 60 <= len(test) <= 60 + np.bincount(timestamps).max()
    assert 30 <= len(validation) <= 30 + np.bincount(timestamps).max()


def test_per_user_time_by_hand_with_interleaved_users_and_ties() -> None:
    #           a  b  a  b  a  b  a  b  a  b  c
    users = [7, 3, 7, 3, 7, 3, 7, 3, 7, 3, 99]
    timestamps = [5, 1, 9, 2, 9, 3, 1, 4, 3, 5, 8]
    # User 7's newest rows are both of second 9: the later in the file is the newer.
    # User 99's only row stays for training.
    labels = labels_of(users, timestamps, kind="per-user-time", test=0.2, validation=0.2)
    assert labels == [0, 0, 1, 0, 2, 0, 0, 1, 0, 2, 0]


def test_per_user_time_ignores_the_order_of_distinct_times_in_the_file() -> None:
    users, timestamps = [1] * 10 + [2] * 10, list(range(20))
    order = np.random.default_rng(0).permutation(20)
    labels = labels_of(users, timestamps, kind="per-user-time")
    moved = labels_of(
        [users[i] for i in order], [timestamps[i] for i in order], kind="per-user-time"
    )
    assert moved == [labels[i] for i in order]
    assert labels == ([0] * 7 + [1] + [2] * 2) * 2


@pytest.mark.parametrize("kind", ["random", "global-time", "per-user-time"])
def test_no_ratings_at_all_are_refused(kind: str) -> None:
    with pytest.raises(DataError, match="the train split is empty: 0 ratings"):
        labels_of([], [], kind=kind)


@pytest.mark.parametrize("kind", ["global-time", "per-user-time"])
def test_ratings_without_different_times_are_not_split_by_time(kind: str) -> None:
    with pytest.raises(DataError, match="all 3 ratings have the same time, so that split"):
        labels_of([1, 1, 2], [5, 5, 5], kind=kind)
    assert labels_of([1, 1, 2], [5, 5, 5], kind="random", validation=0).count(0) == 2


def test_an_empty_test_split_is_refused_with_the_counts() -> None:
    message = "test split is empty: 4 ratings were divided into 4 training, 0 validation and 0 test"
    with pytest.raises(DataError, match=message):
        labels_of([1, 2, 3, 4], [1, 2, 3, 4], kind="per-user-time", validation=0)


def test_an_empty_validation_split_is_refused_if_one_is_wanted() -> None:
    with pytest.raises(DataError, match="validation split is empty: 4 ratings"):
        labels_of([1] * 4, [0] * 4, kind="random", test=0.25, validation=0.1)


@pytest.mark.parametrize(("rows", "test"), [(1, 0.2), (2, 0.9), (4, 0.8)])
def test_a_random_split_of_too_few_rows_is_refused_as_any_other(rows: int, test: float) -> None:
    with pytest.raises(DataError, match=f"split is empty: {rows} ratings"):
        labels_of([1] * rows, [0] * rows, test=test, validation=0)


def test_folding_moves_validation_rows_to_training_and_nothing_else() -> None:
    labels = np.array([0, 1, 2, 1, 2, 0], np.int8)
    folded = fold_validation_into_training(labels)
    assert folded.dtype == np.int8
    assert folded.tolist() == [0, 0, 2, 0, 2, 0]
    assert labels.tolist() == [0, 1, 2, 1, 2, 0]
