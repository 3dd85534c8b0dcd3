from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from ncf.evaluation.residuals import Residuals, by_popularity, by_rating, by_time, residuals


def moment(year: int, month: int = 1, day: int = 1, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp())


def test_residuals_by_hand() -> None:
    ratings = np.array([4.0, 2.0, 4.0], dtype=np.float32)
    errors = np.array([[-1.0, 2.0, -2.0], [0.0, 1.0, 0.0]], dtype=np.float32)

    low, high = residuals(by_rating(ratings), errors)

    assert low == Residuals("2", 1, mean=1.5, rmse=1.5)  # (2 + 1) / 2, both ways
    assert (high.label, high.num_rows) == ("4", 2)
    assert high.mean == pytest.approx(-0.75)  # (-1.5 + 0) / 2
    assert high.rmse == pytest.approx(np.sqrt(2.5) / 2)  # (sqrt((1 + 4) / 2) + 0) / 2


def test_movies_are_grouped_by_their_training_ratings() -> None:
    way = by_popularity(np.array([0, 2, 3, 5000, 9]))
    assert [way.labels[kind] for kind in way.kinds] == [
        "0",
        "1 to 2",
        "3 to 9",
        "1000 or more",
        "3 to 9",
    ]


def test_rows_of_three_years_are_grouped_by_year() -> None:
    last_second = moment(2001) - 1
    way = by_time(np.array([moment(2003, 5), last_second, moment(2001), moment(1969, 12)]))
    assert [way.labels[kind] for kind in way.kinds] == ["2003", "2000", "2001", "1969"]


def test_rows_of_fewer_years_are_grouped_by_tenths_of_their_number() -> None:
    days = np.array([moment(1998, 1, 1 + n) for n in range(20)])
    way = by_time(days[::-1])
    assert way.labels == tuple(f"1998-01-{1 + 2 * n:02d} 00:00" for n in range(10))
    assert list(way.kinds[::-1]) == [n // 2 for n in range(20)]


def test_rows_of_one_second_are_never_parted() -> None:
    times = np.array([moment(1998)] * 15 + [moment(1998, 2)] * 5)
    way = by_time(times)
    assert way.labels == ("1998-01-01 00:00", "1998-02-01 00:00")
    assert list(np.bincount(way.kinds)) == [15, 5]
    assert by_time(np.array([moment(1998)] * 3)).labels == ("1998-01-01 00:00",)
