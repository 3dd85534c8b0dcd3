"""Ids of users and movies as the data set has them, for files of other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foundation.schemas import MOVIE_NAMES, USER_NAMES
from foundation.storage import Storage

Texts = npt.NDArray[np.object_]


@dataclass(frozen=True)
class OriginalIds:
    """Ids as the data set has them, as texts."""

    users: Mapping[int, str] | None
    """By number, if they are texts."""
    movies: Mapping[int, str] | None

    @classmethod
    def of(cls, raw: Storage) -> OriginalIds:
        """Those of a raw data set."""
        return cls(_names(raw / USER_NAMES), _names(raw / MOVIE_NAMES))

    def of_users(self, numbers: npt.NDArray[np.int64]) -> Texts:
        """``[N]`` texts."""
        return _shown(numbers, self.users)

    def of_movies(self, numbers: npt.NDArray[np.int64]) -> Texts:
        """``[N]`` texts."""
        return _shown(numbers, self.movies)


def _names(file: Storage) -> dict[int, str] | None:
    if not file.exists():
        return None
    table = file.read_table()
    return dict(zip(table["id"].to_pylist(), table["name"].to_pylist(), strict=True))


def _shown(numbers: npt.NDArray[np.int64], names: Mapping[int, str] | None) -> Texts:
    found = numbers.tolist()
    texts = map(str, found) if names is None else (names[number] for number in found)
    return np.array(list(texts), dtype=object)
