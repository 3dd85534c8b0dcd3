"""The catalogue of the ratings of ``lists``."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from ncf.data.preprocessor import Preprocessor
from tests.ncf.baselines.choice.lists import NUM_MOVIES


@pytest.fixture
def preprocessor(preprocessor: Preprocessor) -> Preprocessor:
    """The same four movies, again and again."""
    order = np.arange(NUM_MOVIES) % 4
    movies = preprocessor.movies
    columns: dict[str, Any] = {
        each.name: getattr(movies, each.name)[order]
        for each in fields(movies)
        if isinstance(getattr(movies, each.name), np.ndarray)
    }
    names = {name: lists[order] for name, lists in movies.names.items()}
    titles = tuple(movies.titles[movie] for movie in order)
    return replace(preprocessor, movies=replace(movies, **columns, titles=titles, names=names))
