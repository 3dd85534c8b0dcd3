from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor
from ncf.evaluation.slices import Slicing, errors_by_slice, slicings

DAY = 86_400
COLD = "0 (cold start)"
NO_DECADE = "unknown, or of no training movie"


@pytest.fixture
def ways(preprocessor: Preprocessor, make_rows: Callable[..., Batch]) -> dict[str, Slicing]:
    """User 1 has 12 training ratings, user 2 one; movie 0 has 10, movie 1 three, movie 3 none."""
    train = make_rows(
        [1] * 12 + [2],
        [0] * 9 + [1] * 3 + [0],
        [3.0] * 13,
        times=[(100 + day) * DAY for day in range(12)] + [150 * DAY],
    )
    rows = make_rows(
        [1, 1, 2, 0, 0],
        [0, 3, 1, 0, 3],
        [3.0] * 5,
        times=[99 * DAY, 131 * DAY, 150 * DAY + 3600, 500 * DAY, 100 * DAY],
    )
    return {way.name: way for way in slicings(train, rows, preprocessor)}


def labels(way: Slicing) -> list[str]:
    return [way.labels[kind] for kind in way.kinds]


def test_rows_are_divided_by_what_training_tells(ways: dict[str, Slicing]) -> None:
    assert {name: labels(way) for name, way in ways.items()} == {
        "what has training ratings": ["both", "user only", "both", "movie only", "neither"],
        "training ratings of the user": ["10 to 19", "10 to 19", "1 to 9", COLD, COLD],
        "training ratings of the movie": ["10 to 29", COLD, "3 to 9", "10 to 29", COLD],
        "release decade of the movie": ["1980s", NO_DECADE, "1990s", "1980s", NO_DECADE],
        "days since the user's first training rating": [
            "before",
            "30 to 364",
            "0",
            "no training rating",
            "no training rating",
        ],
        "days before the newest training rating": [
            "30 to 364",
            "0 to 29",
            "after it",
            "after it",
            "30 to 364",
        ],
    }


def test_users_and_movies_without_training_ratings_are_slices_of_their_own(
    ways: dict[str, Slicing],
) -> None:
    """Rows 3 and 4 are of an unknown user, 1 and 4 of the movie without a training rating."""
    model = ("a", np.array([[1.0, 2.0, -3.0, 4.0, 6.0], [1.0, 0.0, 1.0, 0.0, 2.0]]))

    found = {(s.name, s.label): s for s in errors_by_slice(ways.values(), [model])}

    user = found["training ratings of the user", COLD]
    assert (user.num_rows, user.errors[0].mae) == (2, (5 + 1) / 2)
    assert user.errors[0].rmse == pytest.approx((math.sqrt(26) + math.sqrt(2)) / 2)
    movie = found["training ratings of the movie", COLD]
    assert (movie.num_rows, movie.errors[0].mae) == (2, (4 + 1) / 2)
    assert movie.errors[0].rmse == pytest.approx((math.sqrt(20) + math.sqrt(2)) / 2)
    known = {
        label: s.errors[0].mae for (name, label), s in found.items() if name.startswith("what has")
    }
    assert known == {
        "neither": (6 + 2) / 2,
        "movie only": (4 + 0) / 2,
        "user only": (2 + 0) / 2,
        "both": ((1 + 3) / 2 + (1 + 1) / 2) / 2,
    }
    decades = {s.label: s for (name, _), s in found.items() if name.startswith("release decade")}
    assert {label: s.num_rows for label, s in decades.items()} == {
        NO_DECADE: 2,
        "1980s": 2,
        "1990s": 1,
    }
    assert decades["1980s"].errors[0].mae == ((1 + 4) / 2 + (1 + 0) / 2) / 2
    assert decades["1990s"].errors[0].mae == (3 + 1) / 2


def test_each_way_covers_every_row_once(ways: dict[str, Slicing]) -> None:
    model = ("a", np.zeros((1, 5)))
    for way in ways.values():
        assert sum(part.num_rows for part in errors_by_slice([way], [model])) == 5


def test_the_slices_of_the_newest_training_rating_itself(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    train = make_rows([1], [0], [3.0], times=[10 * DAY])
    rows = replace(make_rows([1] * 3, [0] * 3, [3.0] * 3), times=torch.tensor([10, 9, 0]) * DAY)

    *_, known_for, past = slicings(train, rows, preprocessor)

    assert labels(known_for) == ["0", "before", "before"]
    assert labels(past) == ["0 to 29"] * 3


def test_errors_by_hand() -> None:
    way = Slicing("size", ("small", "unused", "large"), np.array([2, 0, 2]))
    one = ("one seed", np.array([[1.0, -2.0, 3.0]], np.float32))
    two = ("two seeds", np.array([[0.0, 2.0, 4.0], [1.0, -4.0, 1.0]]))

    small, large = errors_by_slice([way], [one, two])

    assert (small.name, small.label, small.num_rows) == ("size", "small", 1)
    assert [(e.model, e.rmse, e.mae) for e in small.errors] == [
        ("one seed", 2, 2),
        ("two seeds", 3, 3),
    ]
    assert (large.label, large.num_rows) == ("large", 2)
    assert large.errors[0].rmse == pytest.approx(math.sqrt(5))
    assert large.errors[0].mae == pytest.approx(2)
    # The mean over seeds of sqrt(8) and 1, and of 2 and 1.
    assert large.errors[1].rmse == pytest.approx((math.sqrt(8) + 1) / 2)
    assert large.errors[1].mae == pytest.approx(1.5)
