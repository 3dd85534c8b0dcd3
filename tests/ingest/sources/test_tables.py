"""Tables from columns, and what no source may deliver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foundation.schemas import LINKS, MOVIES, RATINGS
from ingest.errors import DatasetError
from ingest.sources.tables import (
    Tables,
    check,
    first_repeated_pair,
    links_table,
    movies_table,
    no_tags,
    ratings_table,
)

COLUMNS: dict[str, list[Any]] = {
    "users": [7, 7, 8],
    "movies": [1, 2, 1],
    "stars": [0.5, 5, 3.5],
    "times": [0, 10, 20],
}


def tables(**columns: list[Any]) -> Tables:
    movies = movies_table([1, 2], ["Heat", "Alien"])
    ratings = ratings_table(**(COLUMNS | columns))
    return Tables(ratings, movies, links_table([1, 2]), no_tags())


def test_tables_have_the_schemas_and_the_columns_given() -> None:
    made = tables()
    assert made.ratings.schema.equals(RATINGS, check_metadata=True)
    assert made.movies.schema.equals(MOVIES, check_metadata=True)
    assert made.links.schema.equals(LINKS, check_metadata=True)
    assert made.ratings.to_pylist()[1] == {
        "row": 1, "user_id": 7, "movie_id": 2, "rating": 5.0, "timestamp": 10
    }  # fmt: skip
    known = movies_table(np.array([3, 4]), ["A", "B"], [1999, None], [["Drama"], []])
    assert known.to_pylist() == [
        {"movie_id": 3, "title": "A", "year": 1999, "genres": ["Drama"]},
        {"movie_id": 4, "title": "B", "year": None, "genres": []},
    ]
    assert links_table([3, 4], ["tt0000001", None], [5, None]).to_pylist() == [
        {"movie_id": 3, "imdb_id": "tt0000001", "tmdb_id": 5},
        {"movie_id": 4, "imdb_id": None, "tmdb_id": None},
    ]
    assert made.movies.to_pylist()[0] == {
        "movie_id": 1,
        "title": "Heat",
        "year": None,
        "genres": [],
    }
    check(made, "mine")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({name: [] for name in COLUMNS}, "mine holds no rating; expected at least one"),
        ({"stars": [4, 5.5, 3]}, r"mine, row 1: found .*'rating': 5.5.*, expected 0.5 to 5 stars"),
        ({"stars": [0, 5, 3]}, "row 0: .*expected 0.5 to 5 stars"),
        ({"stars": [4, 5, float("nan")]}, "row 2: .*expected 0.5 to 5 stars"),
        ({"times": [1, -1, 2]}, "row 1: .*'timestamp': -1.*, expected a time of 0 or more"),
        ({"movies": [1, 3, 2]}, "row 1: .*'movie_id': 3.*expected a movie that is in the table"),
        (
            {"users": [7, 8, 7], "movies": [1, 1, 1]},
            r"row 2: user 7 rates movie 1 a second time \(first in row 0\)",
        ),
    ],
)
def test_wrong_tables_are_refused(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        check(tables(**columns), "mine")


@pytest.mark.parametrize(
    ("users", "movies", "expected"),
    [
        ([1, 1, 2], [1, 2, 1], None),
        ([2, 1, 2, 1], [1, 1, 1, 1], (0, 2)),
        ([5, 5, 4, 4, 5], [9, 8, 7, 7, 9], (2, 3)),
        ([2**62, -(2**62), 2**62], [2**62, 0, 2**62], (0, 2)),
    ],
)
def test_the_first_repeated_pair(
    users: list[int], movies: list[int], expected: tuple[int, int] | None
) -> None:
    assert first_repeated_pair(np.array(users), np.array(movies)) == expected
