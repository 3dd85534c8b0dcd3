"""What a trained model is given, and what it refuses."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ncf
from ncf.errors import CheckpointError, InputError, UnknownIdError
from ncf.inference import inputs
from ncf.inference.ordering import Ordering
from ncf.inference.recommender import Recommender
from tests.ncf.inference.test_recommender import GAUSSIAN_PROCESS, drawn

NEWEST = 964982703


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (7, 7),
        (7.0, 7),
        (np.int32(7), 7),
        (np.uint8(7), 7),
        ([1, 2.0], [1, 2]),
        ([], []),
        (pd.Series([1, 2]), [1, 2]),
        (np.array([1, 2.0], dtype=object), [1, 2]),
        (-(2**63), -(2**63)),
        (np.uint64(2**63 - 1), 2**63 - 1),
    ],
)
def test_whole_numbers(values: Any, expected: Any) -> None:
    found = inputs.whole_numbers(values, "users")
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("1", "'1' .str"),
        (["1", "2"], r"\['1', '2'\]"),
        ([1, "2"], "'2'"),
        (1.5, "1.5"),
        ([1, 1.5], "1.5"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ([1, None], "None"),
        (None, "None"),
        (True, "True .bool"),
        (np.uint64(2**63), "9223372036854775808"),
        (2**64, "18446744073709551616"),
        (1e30, "1e"),
        ([[1], [2, 3]], "one number or a flat list"),
        (pd.Timestamp("2020-01-01"), "Timestamp"),
    ],
)
def test_what_is_no_whole_number_is_refused(value: Any, found: str) -> None:
    with pytest.raises(InputError, match=f"users.*{found}"):
        inputs.whole_numbers(value, "users")
    with pytest.raises(ValueError, match="users"):
        inputs.whole_numbers(value, "users")


IDS = [3, 4, 5]
"""Movies of the world."""


@pytest.fixture
def model(world: Any) -> Recommender:
    return Recommender(drawn(world, GAUSSIAN_PROCESS))


@pytest.mark.parametrize("user", ["1", 1.5, None, True, [1, 2]])
def test_every_query_refuses_the_same_ids(model: Recommender, user: Any) -> None:
    with pytest.raises(InputError, match="user"):
        model.recommend(user)
    with pytest.raises(InputError, match="user"):
        model.explain(user, [IDS[0]])
    if not isinstance(user, list):
        with pytest.raises(InputError, match="users"):
            model.predict(user, IDS[0])
        with pytest.raises(InputError, match="movies"):
            model.predict(1, user)
        with pytest.raises(InputError, match="movie"):
            model.similar(user)
        with pytest.raises(InputError, match="movie"):
            model.title(user)


@pytest.mark.parametrize("n", [0, -1, 2.5, "3", None])
def test_a_number_of_movies_below_one_is_refused(model: Recommender, n: Any) -> None:
    with pytest.raises(InputError, match=r"^n"):
        model.recommend(1, n)
    with pytest.raises(InputError, match=r"^n"):
        model.similar(IDS[0], n)


@pytest.mark.parametrize(
    ("ratings", "found"),
    [
        ([5, float("nan")], "position 1 is nan"),
        ([5, float("inf")], "position 1 is inf"),
        ([0, 5], "position 0 is 0; expected a number from "),
        ([5, 5.5], "position 1 is 5.5"),
        ([5, -4], "position 1 is -4"),
        (["5", "4"], "ratings: found"),
        ([5, None], "ratings: found"),
        ([5, 4, 3], "different lengths: 2, 3, 1"),
    ],
)
def test_ratings_of_a_new_user_are_checked(model: Recommender, ratings: Any, found: str) -> None:
    with pytest.raises(InputError, match=found):
        model.fold_in(IDS[:2], ratings)


def test_a_new_user_rates_each_movie_once(model: Recommender) -> None:
    with pytest.raises(InputError, match=rf"movie {IDS[1]} is rated at positions 0 and 2"):
        model.fold_in([IDS[1], IDS[0], IDS[1]], [5, 4, 3])
    with pytest.raises(UnknownIdError):
        model.fold_in([IDS[0], 10**9], [5, 4])


@pytest.mark.parametrize("time", [NEWEST * 1000, 20050402, 12875, -1, 0, "2005", 1.5e9 + 0.5])
def test_times_in_other_units_are_refused(time: Any) -> None:
    with pytest.raises(InputError, match="time"):
        inputs.seconds(time, NEWEST)


def test_times_of_today_and_next_year_are_taken() -> None:
    assert inputs.seconds([NEWEST, 1.9e9], NEWEST).tolist() == [NEWEST, 1_900_000_000]
    # Of a model whose data have an order instead of times.
    assert inputs.seconds([3, 0], 9).tolist() == [3, 0]


def test_a_user_without_training_ratings_is_reported(
    model: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    known = int(model.preprocessor.user_ids[0])
    with caplog.at_level(logging.WARNING):
        model.predict(known, IDS[:3])
        model.fold_in(IDS[:1], [5]).recommend(0)
        assert not caplog.records
        model.predict([known, 10**9, 10**9], IDS[0])
    (record,) = caplog.records
    assert "1 of 2 users have no training rating, the first is 1000000000" in record.getMessage()


@pytest.mark.parametrize(
    "odd", [[1, [2]], [[1, 2]], np.ma.masked_array([1, 2], mask=[False, True])]
)
def test_nested_and_masked_ids_are_refused(model: Recommender, odd: Any) -> None:
    for ask in (
        lambda: model.recommend(odd),
        lambda: model.similar(odd),
        lambda: model.explain(1, odd),
        lambda: model.recommend(1, 5, seen=odd),
        lambda: model.predict(odd, IDS[0]),
        lambda: model.fold_in(odd, [5, 4]),
    ):
        with pytest.raises(InputError):
            ask()


def test_tensors_are_numbers_too(model: Recommender) -> None:
    expected = model.predict([1, 2], IDS[:2])
    np.testing.assert_array_equal(model.predict(torch.tensor([1, 2]), IDS[:2]), expected)
    with pytest.raises(InputError, match="users"):
        model.predict(torch.ones(2, requires_grad=True), IDS[:2])


@pytest.mark.parametrize("title", [5, None, b"Heat"])
def test_a_title_is_a_text(model: Recommender, title: Any) -> None:
    with pytest.raises(InputError, match=r"title: found .*, expected a text"):
        model.find(title)
    with pytest.raises(UnknownIdError) as caught:
        model.find("x" * 100_000)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    "options", [{"by": "foo"}, {"min_ratings": -1}, {"popularity": math.nan}, {"deviations": -2.0}]
)
def test_an_ordering_that_is_none_is_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"^{name}: found"):
        Ordering(**options)


@pytest.mark.parametrize("folder", ["x" * 5000, "a\0b", "nowhere"])
def test_what_is_no_folder_of_a_checkpoint_is_refused(folder: str) -> None:
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        ncf.load(folder)


def test_seen_movies_may_be_any_collection(model: Recommender) -> None:
    expected = model.recommend(1, 5, seen=IDS[:2]).movies.tolist()
    collections: list[Any] = [set(IDS[:2]), dict.fromkeys(IDS[:2]).keys(), np.array(IDS[:2])]
    for seen in collections:
        assert model.recommend(1, 5, seen=seen).movies.tolist() == expected
