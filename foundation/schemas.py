"""Arrow schema of every table that ``ingest`` writes: the interface between ``ingest`` and ``ncf``.

A raw data set is a folder ``raw/<name>/`` with these files::

    tables.json       the input files of the four tables below (``manifest.TablesManifest``)
    dataset.json      name, source, counts, checksums (``manifest.DatasetManifest``)
    ratings.parquet   RATINGS, in the order of the release's file
    movies.parquet    MOVIES, one row a movie
    links.parquet     LINKS, one row a movie; absent ids are null
    tags.parquet      TAGS, possibly empty
    user_names.parquet, movie_names.parquet
                      NAMES, if the ids of the data are texts
    tmdb.parquet      TMDB, one row a movie, sorted by movie_id; absent without a TMDb crawl

Every file carries ``schema_version`` in its Parquet metadata; ``check_schema`` refuses others.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from foundation.errors import SchemaError

SCHEMA_VERSION: Final = "1"
"""Raised whenever the meaning or type of any column below changes."""

_METADATA: Final = {"schema_version": SCHEMA_VERSION}


def _field(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


RATINGS: Final = pa.schema(
    [
        _field("row", pa.int64()),  # position in the release's file, from 0
        _field("user_id", pa.int64()),
        _field("movie_id", pa.int64()),
        _field("rating", pa.float32()),  # stars
        _field("timestamp", pa.int64()),  # seconds since 1970-01-01 UTC
    ],
    metadata=_METADATA,
)

MOVIES: Final = pa.schema(
    [
        _field("movie_id", pa.int64()),
        _field("title", pa.string()),  # as released, outer blanks removed, year kept
        _field("year", pa.int16(), nullable=True),  # from the title's final "(1995)"
        _field("genres", pa.list_(pa.string())),  # "(no genres listed)" is an empty list
    ],
    metadata=_METADATA,
)

LINKS: Final = pa.schema(
    [
        _field("movie_id", pa.int64()),
        _field("imdb_id", pa.string(), nullable=True),  # "tt0114709"
        _field("tmdb_id", pa.int64(), nullable=True),
    ],
    metadata=_METADATA,
)

TAGS: Final = pa.schema(
    [
        _field("user_id", pa.int64()),
        _field("movie_id", pa.int64()),
        _field("tag", pa.string()),
        _field("timestamp", pa.int64()),
    ],
    metadata=_METADATA,
)

NAMES: Final = pa.schema(
    [_field("id", pa.int64()), _field("name", pa.string())],  # the id that the data have
    metadata=_METADATA,
)

USER_NAMES: Final = "user_names.parquet"
MOVIE_NAMES: Final = "movie_names.parquet"

NAMED: Final = pa.struct([_field("id", pa.int64()), _field("name", pa.string())])
"""A TMDb person, keyword or collection."""

TMDB: Final = pa.schema(
    [
        _field("movie_id", pa.int64()),  # MovieLens
        _field("tmdb_id", pa.int64(), nullable=True),  # of the record found
        _field("status", pa.string()),  # "ok", "missing" (TMDb has none) or "failed" (retry later)
        # Why, unless ok; of an ok record what was left out because it cannot be right.
        _field("error", pa.string(), nullable=True),
        _field("budget", pa.int64(), nullable=True),  # US dollars; TMDb's 0 is null
        _field("revenue", pa.int64(), nullable=True),  # US dollars; TMDb's 0 is null
        _field("popularity", pa.float64(), nullable=True),
        _field("vote_average", pa.float64(), nullable=True),  # 0 to 10; TMDb's 0 is null
        _field("vote_count", pa.int64(), nullable=True),
        _field("runtime", pa.int32(), nullable=True),  # minutes; TMDb's 0 is null
        _field("release_date", pa.date32(), nullable=True),
        _field("original_language", pa.string(), nullable=True),  # ISO 639-1
        _field("imdb_id", pa.string(), nullable=True),
        _field("genres", pa.list_(pa.string())),
        _field("directors", pa.list_(NAMED)),
        _field("cast", pa.list_(NAMED)),  # in billing order
        _field("keywords", pa.list_(NAMED)),
        _field("collection", NAMED, nullable=True),
        _field("fetched_at", pa.timestamp("us", tz="UTC")),
    ],
    metadata=_METADATA,
)

TMDB_NUMERICS: Final = ("budget", "revenue", "popularity", "vote_average", "vote_count")
"""The five numeric features of the original work."""


def check_schema(found: pa.Schema, expected: pa.Schema, origin: str) -> None:
    """Refuse a table that another schema version wrote.

    Raises:
        SchemaError: with ``origin``, and the version or columns found and expected.
    """
    version = (found.metadata or {}).get(b"schema_version", b"none").decode()
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"{origin} has schema version {version}, this program reads version {SCHEMA_VERSION}. "
            "Delete the file and run the ingest stage again."
        )
    if not found.equals(expected, check_metadata=False):
        raise SchemaError(
            f"{origin} has the columns {found.names}, expected {expected.names}. "
            "Delete the file and run the ingest stage again."
        )
