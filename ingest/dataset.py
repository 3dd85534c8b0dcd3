"""The ingest stage: MovieLens tables and TMDb records of one data set, in one raw folder.

``ingest`` is what the training jobs call; the steps are separate for the command line. Each step is
skipped if its result is there and its inputs have not changed, and none harms an older result
before the new one is whole.
"""

from __future__ import annotations

import os
import sys
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
from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS, TMDB
from foundation.storage import Storage
from ingest import loopback
from ingest.config import DataConfig, SyntheticConfig, TmdbConfig
from ingest.manifest import (
    DATASET_FILE,
    TABLES_FILE,
    TMDB_ATTRIBUTION,
    DatasetManifest,
    TablesManifest,
    read_tables_manifest,
)
from ingest.progress import Say
from ingest.sources import registry
from ingest.sources.base import Source, Written
from ingest.sources.synthetic import SyntheticData, SyntheticTmdb
from ingest.tmdb import aio, progress
from ingest.tmdb.crawl import CrawlSummary, crawl
from ingest.tmdb.credentials import HOW_TO_GET_A_TOKEN, Credentials
from ingest.tmdb.shards import TABLE, Shards, Standing, utc_now

_TABLES = {"ratings": RATINGS, "movies": MOVIES, "links": LINKS, "tags": TAGS}
_LOOPBACK_RATE = 1e6  # requests per second: no limit, on one's own machine


@dataclass(frozen=True)
class RawData:
    """A raw data set on disk."""

    folder: Storage
    """``raw/<name>/``, with the files that ``schemas`` describes."""
    name: str
    synthetic: bool
    fingerprint: str
    """SHA-256 over the content of all tables; when TMDb records were fetched does not count."""
    num_ratings: int
    num_users: int
    num_movies: int
    tmdb_coverage: dict[str, int]
    """Movies by status (ok, missing, failed); empty if TMDb was not used."""
    notices: tuple[str, ...]
    """What the user must be told, ``attribution`` last."""
    attribution: tuple[str, ...]
    """Texts that must be shown wherever the data are used: those of the source, and TMDb's."""
    licence: str
    """The terms of the ratings."""


def say_on_stderr(text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def ingest(
    data: DataConfig,
    tmdb: TmdbConfig,
    storage: Storage,
    *,
    environ: Mapping[str, str] = os.environ,
    say: Say = say_on_stderr,
    force: bool = False,
) -> RawData:
    """Bring one data set into ``storage``/raw/<name>/.

    ``force`` reads or generates the tables again even if nothing has changed; TMDb records stay.

    Raises:
        MovieRatingsError: with a message for the user.
    """
    credentials = credentials_for(data, tmdb, environ)
    source, tables, notices = prepare_tables(data, storage / "raw", say, force=force)
    folder = storage / "raw" / tables.name
    if uses_tmdb(tables, tmdb, credentials):
        _, found = crawl_dataset(folder, tables, tmdb, credentials, say)
        notices += found
    return finish(folder, source, tables, tmdb, notices)


def credentials_for(
    data: DataConfig, tmdb: TmdbConfig, environ: Mapping[str, str]
) -> Credentials | None:
    """The user's TMDb credential, if it is wanted and there is one.

    Raises:
        ConfigError: if TMDb is switched on but there is none, or it is in the wrong variable.
    """
    if tmdb.enabled is False or data.source == registry.SYNTHETIC:
        return None
    credentials = Credentials.from_environ(environ)
    if tmdb.enabled is True and credentials is None:
        raise ConfigError(
            "tmdb.enabled is true, but there is no TMDb token in the environment. "
            f"{HOW_TO_GET_A_TOKEN} Or go without with --set tmdb.enabled=false."
        )
    return credentials


def uses_tmdb(tables: TablesManifest, tmdb: TmdbConfig, credentials: Credentials | None) -> bool:
    """Whether records are to be fetched."""
    return tmdb.enabled is not False and (tables.synthetic or credentials is not None)


# -- tables ----------------------------------------------------------------------------------------


def prepare_tables(
    data: DataConfig, raw: Storage, say: Say, *, force: bool = False
) -> tuple[Source, TablesManifest, tuple[str, ...]]:
    """Write the four tables, unless those on disk are current.

    Returns:
        The source, the tables' manifest, and notices for the user.

    Raises:
        MovieRatingsError: if they cannot be had; what was on disk before is untouched then.
    """
    source, notices = registry.choose(data, raw, say)
    folder = raw / source.name
    version = source.version
    current = read_tables_manifest(folder)
    if current is not None and current.source == version and not force and _complete(folder):
        say(f"{source.name}: {current.num_ratings:,} ratings, unchanged")
        return source, current, notices + current.notices
    say(f"{source.name}: reading the ratings")
    with locked(folder):
        tables = _write_tables(source, version, folder)
    say(
        f"{tables.name}: {tables.num_ratings:,} ratings by {tables.num_users:,} users of "
        f"{tables.num_movies:,} movies"
    )
    return source, tables, notices + tables.notices


def _complete(folder: Storage) -> bool:
    return all((folder / f"{name}.parquet").exists() for name in _TABLES)


def _write_tables(source: Source, version: dict[str, object], folder: Storage) -> TablesManifest:
    """Write all tables aside, then put them in place."""
    staging = folder / ".staging"
    staging.delete()
    staging.make_folder()
    try:
        written = source.write(staging)
        manifest = _describe(source, version, staging, written)
        _forget_outdated_records(folder, staging, synthetic=manifest.synthetic)
        # From here to the new manifests the folder counts as not ingested.
        for file in (DATASET_FILE, TABLES_FILE):
            (folder / file).delete()
        for name in _TABLES:
            (staging / f"{name}.parquet").move_to(folder / f"{name}.parquet")
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
    users = (folder / "ratings.parquet").read_table(["user_id"])["user_id"]
    return TablesManifest(
        name=source.name,
        source=version,
        synthetic=source.is_synthetic,
        num_ratings=len(users),
        num_users=pc.count_distinct(users).as_py(),
        num_movies=_count_rows(folder / "movies.parquet"),
        num_tags=_count_rows(folder / "tags.parquet"),
        fingerprint=hashing.combined(parts),
        noise_floor_rmse=written.noise_floor_rmse,
        notices=written.notices,
    )


def _count_rows(file: Storage) -> int:
    return int(pq.read_metadata(file.path, filesystem=file.filesystem).num_rows)


def _forget_outdated_records(folder: Storage, staging: Storage, *, synthetic: bool) -> None:
    """Drop TMDb records that belong to other ids, or another synthetic world, than the new tables.

    It happens before the new tables are in place: after a crash the comparison is simply repeated.
    """
    shards = Shards(folder)
    if not shards.files():
        return
    if synthetic:
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
    """How the movies of the data set in ``folder`` stand with TMDb.

    ``refetch`` takes every record for stale.
    """
    return Shards(folder).standing(
        _movie_ids(folder),
        now=utc_now(),
        max_age_days=0.0 if refetch else tmdb.max_age_days,
        look_up=tmdb.find_by_imdb_id,
    )


def crawl_dataset(
    folder: Storage,
    tables: TablesManifest,
    tmdb: TmdbConfig,
    credentials: Credentials | None,
    say: Say,
    *,
    limit: int | None = None,
    refetch: bool = False,
) -> tuple[CrawlSummary | None, tuple[str, ...]]:
    """Fetch what is missing, failed or stale; at most ``limit`` movies.

    Returns:
        What was done (``None`` if there was nothing to do) and what to tell the user.

    Raises:
        CrawlLockedError: if another crawl is at work in this folder.
        TmdbError: if the whole crawl had to stop; what was fetched is kept.
    """
    shards = Shards(folder)
    if not len(standing(folder, tmdb, refetch=refetch).pending) and not shards.has_parts():
        return None, _crawl_notices(shards, None)
    with locked(folder):
        shards.sweep()
        pending = standing(folder, tmdb, refetch=refetch).pending[:limit]
        summary = None
        if len(pending):
            links = (folder / "links.parquet").read_table()
            if tables.synthetic:
                summary = aio.run(_crawl_loopback(tables, links, pending, shards, tmdb, say))
            else:
                assert credentials is not None  # uses_tmdb saw to that
                if tmdb.is_unencrypted:
                    say(
                        f"TMDb: {tmdb.base_url} is not encrypted, so others on the way there can "
                        "read your token. Write https in tmdb.base_url unless it is a test server."
                    )
                summary = aio.run(_crawl(links, pending, shards, tmdb, credentials, say))
            say(_report(summary))
        if shards.has_parts():
            shards.merge(_movie_ids(folder))
    return summary, _crawl_notices(shards, summary)


async def _crawl(
    links: pa.Table,
    pending: npt.NDArray[np.int64],
    shards: Shards,
    tmdb: TmdbConfig,
    credentials: Credentials,
    say: Say,
) -> CrawlSummary:
    with progress.view(say) as view:
        return await crawl(links, pending, shards, tmdb, credentials, view)


async def _crawl_loopback(
    tables: TablesManifest,
    links: pa.Table,
    pending: npt.NDArray[np.int64],
    shards: Shards,
    tmdb: TmdbConfig,
    say: Say,
) -> CrawlSummary:
    """Crawl the synthetic records from a server of our own."""
    config = SyntheticConfig.model_validate(tables.source["synthetic"])
    records = SyntheticTmdb.of(SyntheticData.generate(config))
    async with loopback.serving(records) as base_url:
        changed = tmdb.model_copy(
            update={"base_url": base_url, "requests_per_second": _LOOPBACK_RATE}
        )
        return await _crawl(links, pending, shards, changed, loopback.CREDENTIALS, say)


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
        CrawlLockedError: if a crawl is at work.
    """
    purged = {}
    for folder in (storage / "raw").list_folders():
        shards = Shards(folder)
        if count := len(shards.files()):
            purged[folder.name] = count
            if not dry_run:
                with locked(folder):
                    # The manifest vouches for records; the next run writes a new one.
                    (folder / DATASET_FILE).delete()
                    shards.purge()
    return purged


# -- the whole -------------------------------------------------------------------------------------


def finish(
    folder: Storage,
    source: Source,
    tables: TablesManifest,
    tmdb: TmdbConfig,
    notices: tuple[str, ...],
) -> RawData:
    """Write the manifest of the whole data set, after all other files, and describe it."""
    used = tmdb.enabled is not False and (folder / TABLE).exists()
    coverage: dict[str, int] = {}
    parts = {"tables": tables.fingerprint}
    attribution = source.attribution
    shards = Shards(folder)
    if used:
        coverage = shards.coverage()
        columns = [name for name in TMDB.names if name != "fetched_at"]
        parts["tmdb"] = hashing.of_file(folder / TABLE, columns)
        notices += _age_notice(shards, tmdb)
        if not tables.synthetic:
            attribution += (TMDB_ATTRIBUTION,)
    if tmdb.enabled is not False and shards.has_parts():
        tried = sum(shards.coverage().values())
        notices += (
            f"TMDb: {tried:,} movies have been tried; the records can be used once all have. Run "
            "the crawl again to go on.",
        )
    elif tmdb.enabled is not False and not used and not tables.synthetic:
        notices += (f"TMDb features are missing. {HOW_TO_GET_A_TOKEN}",)
    manifest = DatasetManifest(
        **tables.model_dump(exclude={"fingerprint", "notices"}),
        tmdb_coverage=coverage,
        fingerprint=hashing.combined(parts),
        attribution=attribution,
    )
    content = manifest.model_dump(mode="json")
    if not (folder / DATASET_FILE).exists() or (folder / DATASET_FILE).read_json() != content:
        (folder / DATASET_FILE).write_json(content)
    return RawData(
        folder=folder,
        name=tables.name,
        synthetic=tables.synthetic,
        fingerprint=manifest.fingerprint,
        num_ratings=tables.num_ratings,
        num_users=tables.num_users,
        num_movies=tables.num_movies,
        tmdb_coverage=coverage,
        notices=notices + attribution,
        attribution=attribution,
        licence=source.licence,
    )


def _age_notice(shards: Shards, tmdb: TmdbConfig) -> tuple[str, ...]:
    """A warning if records are older than TMDb's terms allow."""
    oldest = shards.oldest()
    if oldest is None or utc_now() - oldest <= timedelta(days=tmdb.max_age_days):
        return ()
    return (
        f"TMDb: some records are from {oldest:%Y-%m-%d}, older than tmdb.max_age_days = "
        f"{tmdb.max_age_days:g}. Set a token and run again to renew them, or remove them with "
        "python -m ingest tmdb --purge.",
    )
