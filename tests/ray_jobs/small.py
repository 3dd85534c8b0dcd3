"""A job that is quick on a real Ray, for tests that run it in their own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ingest.config import DataConfig, SyntheticConfig, TmdbConfig
from ray_jobs.config import JobConfig

DATA = DataConfig(
    source="synthetic",
    synthetic=SyntheticConfig(num_users=50, num_movies=60, num_ratings=1503),
)


def job(storage: Path, **sections: Any) -> JobConfig:
    values = {"storage": str(storage), "data": DATA, "tmdb": TmdbConfig(enabled=False), **sections}
    return JobConfig.model_validate(values)


IMPOSSIBLE = 10**13
"""Weights of this size fit no machine: an honest failure in the middle of a search."""
