"""The ingest stage: the tables and TMDb records of one data set, in one raw folder.

``ingest`` is what the training jobs call; the command line calls its steps one by one. A step is
skipped if its result exists and its inputs have not changed, and replaces an older result only once
the new one is complete.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foundation import hashing
from foundation.errors import ConfigError
from foundation.lock import locked
from foundation.schemas import (
    LINKS,
    MOVIE_NAMES,
    MOVIES,
    NAMES,
    RATINGS,
    TAGS,
    TMDB,
    USER_NAMES,
)
from foundation.storage import Storage
from ingest import loopback
from ingest.config import DataConfig, TmdbConfig
from ingest.manifest import (
    DATASET_FILE,
    TABLES_FILE,
    TMDB_ATTRIBUTION,
    DatasetManifest,
    TablesManifest,
    read_tables_manifest,
)
from ingest.raw_data import RawData
from ingest.releases import Size
from ingest.sources.base import Source, Written
from ingest.sources.selection import open_source, selected_class
from ingest.tmdb import aio, progress
from ingest.tmdb.crawl import CrawlSummary, crawl
from ingest.tmdb.credentials import HOW_TO_GET_A_TOKEN, Credentials
from ingest.tmdb.records import LEFT_OUT
from ingest.tmdb.shards import TABLE, Shards, Standing, utc_now

logger = logging.getLogger(__name__)

_TABLES = {"ratings": RATINGS, "movies": MOVIES, "links": LINKS, "tags": TAGS}
_ROWS_AT_A_TIME = 250_000
_LOOPBACK_RATE = 1e6  # requests per second: no limit on this machine


@dataclass(frozen=True)
class RawTables:
    """The four tables of a source on disk."""

    folder: Storage
    """``raw/<name>/``."""
    source: Source
    manifest: TablesManifest
    notices: tuple[str, ...]
    """Notices that must be shown to users."""


def ingest(
    data: DataConfig,
    tmdb: TmdbConfig,
    storage: Storage,
    *,
    environ: Mapping[str, str] = os.environ,
    force: bool = False,
) -> RawData:
    """Write one data set to ``storage``/raw/<name>/.

    ``force`` reads or generates the tables again even if nothing has changed; TMDb records stay.

    Raises:
        MovieRatingsError: with a message for the user.
    """
    credentials = credentials_for(data, tmdb, environ)
    tables = prepare_tables(data, storage / "raw", force=force)
    notices: tuple[str, ...] = ()
    if uses_tmdb(tables, tmdb, credentials):
        _, notices = crawl_dataset(tables, tmdb, credentials)
    return finish(tables, tmdb, notices)


def credentials_for(
    data: DataConfig, tmdb: TmdbConfig, environ: Mapping[str, str]
) -> Credentials | None:
    """The user's TMDb credential, if it is needed and set.

    Raises:
        ConfigError: if TMDb is switched on but no credential is set, or it is in the wrong
            variable.
    """
    if tmdb.enabled is False or selected_class(data).has_tmdb_records:
        return None
    credentials = Credentials.from_environ(environ)
    if tmdb.enabled is True and credentials is None:
        raise ConfigError(
            "tmdb.enabled is true, but there is no TMDb token in the environment. "
            f"{HOW_TO_GET_A_TOKEN} Or do without TMDb: --set tmdb.enabled=false."
        )
    return credentials


def uses_tmdb(tables: RawTables, tmdb: TmdbConfig, credentials: Credentials | None) -> bool:
    """Whether records are to be fetched."""
    return tmdb.enabled is not False and (tables.source.has_tmdb_records or credentials is not None)


# -- tables ----------------------------------------------------------------------------------------


def prepare_tables(data: DataConfig, raw: Storage, *, force: bool = False) -> RawTables:
    """Write the four tables, unless those on disk are current.

    Raises:
        MovieRatingsError: if they cannot be read; older tables on disk are then untouched.
    """
    source, notices = open_source(data, raw)
    folder = raw / source.name
    version = source.version
    current = read_tables_manifest(folder)
    if current is not None and current.source == version and not force and _complete(folder):
        logger.info("%s: %s ratings, unchanged", source.name, f"{current.num_ratings:,}")
        return _tables(folder, source, current, notices)
    logger.info("%s: reading the ratings", source.name)
    with locked(folder):
        written = _write_tables(source, version, folder)
    logger.info(
        f"{written.name}: {written.num_ratings:,} ratings by {written.num_users:,} users of "
        f"{written.num_movies:,} movies"
    )
    return _tables(folder, source, written, notices)


def _tables(
    folder: Storage, source: Source, manifest: TablesManifest, notices: tuple[str, ...]
) -> RawTables:
    size = Size(manifest.num_ratings, manifest.num_users, manifest.num_movies)
    return RawTables(folder, source.identified(size), manifest, notices + manifest.notices)


def _complete(folder: Storage) -> bool:
    return all((folder / f"{name}.parquet").exists() for name in _TABLES)


def _write_tables(source: Source, version: dict[str, object], folder: Storage) -> TablesManifest:
    """Write all tables to a folder of their own, then move them into place."""
    staging = folder / ".staging"
    staging.delete()
    staging.make_folder()
    try:
        written = source.write(staging)
        manifest = _describe(source, version, staging, written)
        _forget_outdated_records(folder, staging, all_of_them=source.has_tmdb_records)
        # From here until the new manifests are written, the folder counts as not ingested.
        for file in (DATASET_FILE, TABLES_FILE):
            (folder / file).delete()
        for name in _TABLES:
            (staging / f"{name}.parquet").move_to(folder / f"{name}.parquet")
        for file in (USER_NAMES, MOVIE_NAMES):
            (folder / file).delete()
            if (staging / file).exists():
                (staging / file).move_to(folder / file)
    finally:
        staging.delete()
    (folder / TABLES_FILE).write_json(manifest.model_dump(mode="json"))
    return manifest


def _describe(
    source: Source, version: dict[str, object], folder: Storage, written: Written
) -> TablesManifest:
    parts = {
        name: hashing.of_file(folder / f"{name}.parquet", schema.names)
        for name, schema in _TABLES.items()
    }
    for file in (USER_NAMES, MOVIE_NAMES):
        if (folder / file).exists():
            parts[file] = hashing.of_file(folder / file, NAMES.names)
    num_ratings, num_users = _count_ratings(folder / "ratings.parquet")
    return TablesManifest(
        name=source.name,
        source=version,
        synthetic=source.is_synthetic,
        num_ratings=num_ratings,
        num_users=num_users,
        num_movies=_count_rows(folder / "movies.parquet"),
        num_tags=_count_rows(folder / "tags.parquet"),
        fingerprint=hashing.combined(parts),
        noise_floor_rmse=written.noise_floor_rmse,
        notices=written.notices,
    )


def _count_ratings(file: Storage) -> tuple[int, int]:
    """Number of ratings and of distinct users, read in batches."""
    users = pa.array([], pa.int64())
    with file.filesystem.open_input_file(file.path) as stream:
        parquet = pq.ParquetFile(stream, pre_buffer=False)
        for batch in parquet.iter_batches(_ROWS_AT_A_TIME, columns=["user_id"]):
            users = pc.unique(pa.chunked_array([users, pc.unique(batch.column(0))]))
        return parquet.metadata.num_rows, len(users)


def _count_rows(file: Storage) -> int:
    return int(pq.read_metadata(file.path, filesystem=file.filesystem).num_rows)


def _forget_outdated_records(folder: Storage, staging: Storage, *, all_of_them: bool) -> None:
    """Delete TMDb records whose ids differ from those of the new tables, or all of them.

    This happens before the new tables are in place, so that a crash only repeats the comparison.
    """
    shards = Shards(folder)
    if not shards.files():
        return
    if all_of_them:
        shards.purge()
        return
    old_file = folder / "links.parquet"
    old = _links_by_movie(old_file) if old_file.exists() else {}
    new = _links_by_movie(staging / "links.parquet")
    changed = [movie for movie, link in old.items() if new.get(movie, link) != link]
    if changed:
        shards.forget(np.array(changed, np.int64))


def _links_by_movie(file: Storage) -> dict[int, tuple[str | None, int | None]]:
    table = file.read_table()
    columns = [table[name].to_pylist() for name in ("movie_id", "imdb_id", "tmdb_id")]
    return {movie: (imdb, tmdb) for movie, imdb, tmdb in zip(*columns, strict=True)}


# -- TMDb ------------------------------------------------------------------------------------------


def standing(folder: Storage, tmdb: TmdbConfig, *, refetch: bool = False) -> Standing:
    """Which movies of the data set in ``folder`` have current, old, failed or no TMDb records.

    ``refetch`` counts every record as too old.
    """
    return Shards(folder).standing(
        _movie_ids(folder),
        now=utc_now(),
        max_age_days=0.0 if refetch else tmdb.max_age_days,
        look_up=tmdb.find_by_imdb_id,
    )


def crawl_dataset(
    tables: RawTables,
    tmdb: TmdbConfig,
    credentials: Credentials | None,
    *,
    limit: int | None = None,
    refetch: bool = False,
) -> tuple[CrawlSummary | None, tuple[str, ...]]:
    """Fetch missing, failed and old records; at most ``limit`` movies.

    Returns:
        What was done (None if there was nothing to do) and what to tell the user.

    Raises:
        LockedError: if another crawl is at work in this folder.
        TmdbError: if the crawl had to stop; records fetched before are kept.
    """
    folder = tables.folder
    shards = Shards(folder)
    if not _has_links(folder):
        return None, ()
    if not len(standing(folder, tmdb, refetch=refetch).pending) and not shards.has_parts():
        return None, _crawl_notices(shards, None)
    with locked(folder):
        shards.sweep()
        pending = standing(folder, tmdb, refetch=refetch).pending[:limit]
        summary = None
        if len(pending):
            links = (folder / "links.parquet").read_table()
            if tables.source.has_tmdb_records:
                summary = aio.run(_crawl_loopback(tables.source, links, pending, shards, tmdb))
            else:
                assert credentials is not None  # see uses_tmdb
                summary = aio.run(_crawl(links, pending, shards, tmdb, credentials))
            logger.info(_report(summary))
        if shards.has_parts():
            shards.merge(_movie_ids(folder))
    return summary, _crawl_notices(shards, summary)


async def _crawl(
    links: pa.Table,
    pending: npt.NDArray[np.int64],
    shards: Shards,
    tmdb: TmdbConfig,
    credentials: Credentials,
) -> CrawlSummary:
    with progress.view() as view:
        return await crawl(links, pending, shards, tmdb, credentials, view)


async def _crawl_loopback(
    source: Source,
    links: pa.Table,
    pending: npt.NDArray[np.int64],
    shards: Shards,
    tmdb: TmdbConfig,
) -> CrawlSummary:
    """Crawl the records of the source, from a server in this process."""
    async with loopback.serving(source.tmdb_records()) as base_url:
        changed = tmdb.model_copy(
            update={"base_url": base_url, "requests_per_second": _LOOPBACK_RATE}
        )
        return await _crawl(links, pending, shards, changed, loopback.CREDENTIALS)


def _has_links(folder: Storage) -> bool:
    """Whether any movie has an id that TMDb can be queried by."""
    links = (folder / "links.parquet").read_table(["imdb_id", "tmdb_id"])
    return any(column.null_count < links.num_rows for column in links.columns)


def _movie_ids(folder: Storage) -> npt.NDArray[np.int64]:
    ids: npt.NDArray[np.int64] = (
        (folder / "movies.parquet").read_table(["movie_id"])["movie_id"].to_numpy()
    )
    return ids


def _report(summary: CrawlSummary) -> str:
    return (
        f"TMDb: {summary.ok:,} records fetched, {summary.missing:,} missing, "
        f"{summary.failed:,} failed, in {summary.elapsed_s:.1f} s ({summary.requests:,} requests, "
        f"{summary.retries:,} retries, {summary.refusals:,} rate-limited)"
    )


def _crawl_notices(shards: Shards, summary: CrawlSummary | None) -> tuple[str, ...]:
    notices: list[str] = []
    if summary is not None and summary.gave_up:
        notices.append(f"TMDb: the crawl ended early. {summary.gave_up}")
    failures = shards.failures()
    if failures:
        first = "; ".join(f"{movie} ({reason})" for movie, reason in list(failures.items())[:5])
        notices.append(
            f"TMDb: {len(failures):,} movies failed and will be tried again in the next run. The "
            f"first: {first}"
        )
    return tuple(notices)


def purge(storage: Storage, *, dry_run: bool = False) -> dict[str, int]:
    """Remove the TMDb records of every raw data set; the number of files by data set.

    Raises:
        LockedError: if a crawl is at work.
    """
    purged = {}
    for folder in (storage / "raw").list_folders():
        shards = Shards(folder)
        if count := len(shards.files()):
            purged[folder.name] = count
            if not dry_run:
                with locked(folder):
                    # The manifest lists the records; the next run writes a new one.
                    (folder / DATASET_FILE).delete()
                    shards.purge()
    return purged


# -- the data set ----------------------------------------------------------------------------------


def finish(tables: RawTables, tmdb: TmdbConfig, notices: tuple[str, ...] = ()) -> RawData:
    """Write the manifest of the data set, after all other files, and describe it.

    ``notices`` are those of the crawl.
    """
    folder, source, written = tables.folder, tables.source, tables.manifest
    shards = Shards(folder)
    used = tmdb.enabled is not False and (folder / TABLE).exists()
    coverage = shards.coverage() if used else {}
    attribution = source.attribution
    if used and not source.has_tmdb_records:
        attribution += (TMDB_ATTRIBUTION,)
    notices = tables.notices + notices
    if tmdb.enabled is not False:
        notices += _tmdb_notices(tables, tmdb, used=used)
    manifest = DatasetManifest(
        **written.model_dump(exclude={"fingerprint", "notices"}),
        tmdb_coverage=coverage,
        fingerprint=_fingerprint(tables, used=used),
        attribution=attribution,
        licence=source.licence,
    )
    content = manifest.model_dump(mode="json")
    if not (folder / DATASET_FILE).exists() or (folder / DATASET_FILE).read_json() != content:
        (folder / DATASET_FILE).write_json(content)
    return RawData(
        folder=folder,
        name=written.name,
        synthetic=written.synthetic,
        fingerprint=manifest.fingerprint,
        num_ratings=written.num_ratings,
        num_users=written.num_users,
        num_movies=written.num_movies,
        tmdb_coverage=coverage,
        notices=notices + attribution,
        attribution=attribution,
        licence=source.licence,
    )


def _fingerprint(tables: RawTables, *, used: bool) -> str:
    """Of the tables and, if they are used, of TMDb's records."""
    parts = {"tables": tables.manifest.fingerprint}
    if used:
        columns = [name for name in TMDB.names if name != "fetched_at"]
        parts["tmdb"] = hashing.of_file(tables.folder / TABLE, columns)
    return hashing.combined(parts)


def _tmdb_notices(tables: RawTables, tmdb: TmdbConfig, *, used: bool) -> tuple[str, ...]:
    """What the user should know about TMDb's records: their age, or why there are none."""
    shards = Shards(tables.folder)
    notices = (*_age_notice(shards, tmdb), *_left_out_notice(shards)) if used else ()
    if shards.has_parts():
        tried = sum(shards.coverage().values())
        return (
            *notices,
            f"TMDb: {tried:,} movies have been tried; the records can be used once all have. Run "
            "the crawl again to continue.",
        )
    if used or tables.source.has_tmdb_records:
        return notices
    if not _has_links(tables.folder):
        return (f"TMDb features are missing: {tables.source.name} has no TMDb or IMDb ids.",)
    return (f"TMDb features are missing. {HOW_TO_GET_A_TOKEN}",)


def _left_out_notice(shards: Shards) -> tuple[str, ...]:
    """How many records have values that cannot be right."""
    found = shards.left_out()
    if not found:
        return ()
    movie, what = next(iter(found.items()))
    return (
        f"TMDb: {len(found):,} records have values that cannot be right, such as a budget below "
        f"$1,000; these count as unknown. The first: movie {movie} "
        f"({what.removeprefix(LEFT_OUT)}).",
    )


def _age_notice(shards: Shards, tmdb: TmdbConfig) -> tuple[str, ...]:
    """A warning if records are older than TMDb's terms allow."""
    oldest = shards.oldest()
    if oldest is None or (utc_now() - oldest) / timedelta(days=1) <= tmdb.max_age_days:
        return ()
    return (
        f"TMDb: some records are from {oldest:%Y-%m-%d}, older than tmdb.max_age_days = "
        f"{tmdb.max_age_days:g}. Set a token and run again to renew them, or remove them with "
        "python -m ingest tmdb --purge.",
    )
