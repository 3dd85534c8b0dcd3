"""What a raw data set on disk consists of."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.storage import Storage


@dataclass(frozen=True)
class RawData:
    """A raw data set on disk."""

    folder: Storage
    """``raw/<name>/``, with the files that ``foundation.schemas`` describes."""
    name: str
    synthetic: bool
    fingerprint: str
    """SHA-256 of the content of all tables, without the times at which records were fetched."""
    num_ratings: int
    num_users: int
    num_movies: int
    tmdb_coverage: dict[str, int]
    """Movies by status (ok, missing, failed); empty if TMDb was not used."""
    notices: tuple[str, ...]
    """Notices that must be shown to users, ``attribution`` last."""
    attribution: tuple[str, ...]
    """Texts that must be shown wherever the data are used: those of the source, and TMDb's."""
    licence: str
    """The terms of the ratings."""
