"""A job that is quick on a real Ray, for tests that run it in their own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sklearn.metrics import mean_squared_error

import ncf
from ingest.config import DataConfig, SyntheticConfig, TmdbConfig
from ncf.data.dataset import PreparedDataset
from ray_jobs.config import JobConfig

DATA = DataConfig(
    source="synthetic",
    synthetic=SyntheticConfig(num_users=50, num_movies=60, num_ratings=1503),
)


def job(storage: Path, **sections: Any) -> JobConfig:
    """A job that trains in its own processes, unless ``sections`` ask for workers."""
    values = {
        "storage": str(storage),
        "task": "rating",
        "data": DATA,
        "tmdb": TmdbConfig(enabled=False),
        "scaling": {"num_workers": 0},
        **sections,
    }
    values["compare"] = {"trials_per_baseline": 2, **sections.get("compare", {})}
    return JobConfig.model_validate(values)


IMPOSSIBLE = 10**9
"""Weights of this size fit no machine: an honest failure in the middle of a search."""


def validation_rmse(model: Path, prepared: PreparedDataset) -> float:
    """Of a checkpoint, recomputed with scikit-learn."""
    rows = prepared.table("validation", ["user_id", "movie_index", "rating"]).to_pandas()
    movies = prepared.preprocessor.movies.ids[rows["movie_index"]]
    found = ncf.load(model).predict(rows["user_id"], movies)
    return float(mean_squared_error(rows["rating"], found) ** 0.5)
