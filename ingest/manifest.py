"""``tables.json`` and ``dataset.json``: contents, source, licence and attribution of a raw data
set."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from foundation.schemas import SCHEMA_VERSION
from foundation.storage import Storage

DATASET_FILE: Final = "dataset.json"
TABLES_FILE: Final = "tables.json"

TMDB_ATTRIBUTION: Final = (
    "This product uses the TMDB API but is not endorsed or certified by TMDB "
    "(https://www.themoviedb.org)."
)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: str = SCHEMA_VERSION


class TablesManifest(_Document):
    """``tables.json``: the four tables of the source, written as soon as they are."""

    name: str
    source: dict[str, Any]
    """The source's version: it stays the same if and only if the tables do."""
    synthetic: bool
    num_ratings: int
    num_users: int
    num_movies: int
    num_tags: int
    fingerprint: str
    noise_floor_rmse: float | None = None
    """RMSE of the true, noiseless prediction on the ratings; synthetic data only."""
    notices: tuple[str, ...] = ()


class DatasetManifest(_Document):
    """``dataset.json``: the complete data set, written last."""

    name: str
    source: dict[str, Any]
    synthetic: bool
    num_ratings: int
    num_users: int
    num_movies: int
    num_tags: int
    noise_floor_rmse: float | None
    tmdb_coverage: dict[str, int]
    fingerprint: str
    attribution: tuple[str, ...]
    """Texts that must be shown wherever the data are used: those of the source, and TMDb's."""
    licence: str
    """The terms of the ratings."""


def read_tables_manifest(folder: Storage) -> TablesManifest | None:
    """The manifest of the tables in ``folder``; ``None`` without one that this version wrote."""
    file = folder / TABLES_FILE
    if not file.exists():
        return None
    try:
        manifest = TablesManifest.model_validate_json(file.read_bytes())
    except ValidationError:
        return None
    return manifest if manifest.schema_version == SCHEMA_VERSION else None
