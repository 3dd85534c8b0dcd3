"""Fetch many movies at once and write their records as parts; an interrupted crawl is continued.

A crawl has two rounds. The first requests each distinct TMDb id, and looks up by IMDb id the movies
that have none or whose id TMDb does not know. The second fetches the ids that were found by lookup,
unless they have a record already. A fixed number of workers draws jobs from an iterator and records
are written in parts, so memory does not grow with the number of movies.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.config import TmdbConfig
from ingest.errors import TmdbDownError, TmdbError, TmdbResponseError
from ingest.tmdb.aio import rarer_garbage_collection
from ingest.tmdb.client import NOT_LOOKED_UP, TmdbClient
from ingest.tmdb.credentials import Credentials
from ingest.tmdb.progress import Tally, View, shown
from ingest.tmdb.rate_limit import Backoff, RateLimiter
from ingest.tmdb.records import Row, Status, TmdbRecord, without_data
from ingest.tmdb.shards import Shards, encode, utc_now

_NOT_ENCODABLE: Final = (pa.ArrowException, ValueError, TypeError, OverflowError)

ALL_UNKNOWN: Final = 50
"""Number of unknown ids without any known one that indicates a wrong address."""


class Job(NamedTuple):
    """One TMDb id to fetch (or none) for the movies that share it."""

    tmdb_id: int | None
    movies: Sequence[tuple[int, str | None]]
    """Movie ids of the data set with their IMDb ids."""
    found_by_imdb_id: bool = False


@dataclass(frozen=True)
class CrawlSummary:
    """Counts of movies and requests of one crawl."""

    pending: int
    ok: int
    missing: int
    failed: int
    requests: int
    retries: int
    refusals: int
    elapsed_s: float
    gave_up: str | None
    """Why the crawl ended early; the movies not tried count as failed."""


def plan(links: pa.Table, pending: npt.NDArray[np.int64]) -> Iterator[Job]:
    """The jobs of the first round: one for each distinct TMDb id of ``pending``."""
    chosen = links.filter(pc.is_in(links["movie_id"], pa.array(pending)))
    counts = pc.value_counts(chosen["tmdb_id"].drop_null())
    is_shared = pc.greater(counts.field("counts"), 1)
    shared = set(counts.field("values").filter(is_shared).to_pylist())
    waiting: dict[int, list[tuple[int, str | None]]] = defaultdict(list)
    for batch in chosen.to_batches(max_chunksize=1_000):
        columns = [batch[name].to_pylist() for name in ("tmdb_id", "movie_id", "imdb_id")]
        for tmdb_id, movie_id, imdb_id in zip(*columns, strict=True):
            if tmdb_id in shared:
                waiting[tmdb_id].append((movie_id, imdb_id))
            else:
                yield Job(tmdb_id, ((movie_id, imdb_id),))
    for tmdb_id, movies in waiting.items():
        yield Job(tmdb_id, movies)


async def crawl(
    links: pa.Table,
    pending: npt.NDArray[np.int64],
    shards: Shards,
    config: TmdbConfig,
    credentials: Credentials,
    view: View,
    *,
    now: Callable[[], datetime] = utc_now,
    backoff: Backoff | None = None,
    rate_limiter: RateLimiter | None = None,
) -> CrawlSummary:
    """Fetch the movies ``pending`` and write their records as parts.

    Records that were fetched before a cancellation are kept. The caller holds the folder's lock.

    Raises:
        TmdbAuthError: if TMDb refuses the credentials.
        TmdbError: if nothing at the address looks like TMDb.
        StorageError: if records cannot be written.
    """
    client = TmdbClient(config, credentials, now=now, backoff=backoff, rate_limiter=rate_limiter)
    async with client:
        run = _Run(client, shards, config, len(pending), now)
        async with shown(run.tally, view):
            with rarer_garbage_collection():
                gave_up = await run.everything(plan(links, pending), pending)
    tally = run.tally()
    return CrawlSummary(
        pending=len(pending),
        ok=tally.ok,
        missing=tally.missing,
        failed=tally.failed,
        requests=tally.requests,
        retries=tally.retries,
        refusals=tally.refusals,
        elapsed_s=tally.elapsed_s,
        gave_up=gave_up,
    )


class _Run:
    """One crawl in progress."""

    def __init__(
        self,
        client: TmdbClient,
        shards: Shards,
        config: TmdbConfig,
        total: int,
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._shards = shards
        self._config = config
        self._now = now
        self._tally = Tally(total)
        self._buffer: list[Row] = []
        self._part_size = config.part_size
        self._written_at = time.monotonic()
        self._writes: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self._settled: set[int] = set()
        self._found: dict[int, list[tuple[int, str | None]]] = defaultdict(list)
        self._unknown = 0
        self._trusted = shards.coverage()["ok"] > 0

    def tally(self) -> Tally:
        """The counts so far."""
        traffic = self._client.traffic
        self._tally.requests = traffic.requests
        self._tally.retries = traffic.retries
        self._tally.refusals = traffic.refusals
        return self._tally

    async def everything(self, jobs: Iterable[Job], pending: npt.NDArray[np.int64]) -> str | None:
        """Both rounds; the reason if TMDb stopped answering."""
        try:
            await self._work_off(jobs)
            await self._flush()
            await self._work_off(self._second_round())
        except TmdbDownError as error:
            self._settle_rest(pending, f"not tried: {error}")
            return str(error)
        finally:
            await self._flush()
        return None

    async def _work_off(self, jobs: Iterable[Job]) -> None:
        """Run ``jobs`` by a fixed number of workers; the first fatal error stops all."""
        queue = iter(jobs)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._config.concurrency):
                    group.create_task(self._worker(queue))
        except BaseExceptionGroup as errors:
            fatal = errors.exceptions[0]
        else:
            return
        raise fatal

    async def _worker(self, queue: Iterator[Job]) -> None:
        """Record the movies of one job after the other, or remember the ids found by lookup."""
        for job in queue:
            record = None
            try:
                if job.tmdb_id is not None:
                    record = await self._client.movie(job.tmdb_id)
            except TmdbResponseError as error:
                for movie_id, _ in job.movies:
                    self._settle(movie_id, self._without(job.tmdb_id, "failed", str(error)))
            else:
                for movie_id, imdb_id in job.movies:
                    if record is not None:
                        self._settle(movie_id, record)
                    else:
                        await self._look_up(job, movie_id, imdb_id)
            if self._part_is_due():
                await asyncio.shield(self._write_part())

    async def _look_up(self, job: Job, movie_id: int, imdb_id: str | None) -> None:
        """Look for a movie by its IMDb id, since TMDb does not know its TMDb id."""
        reason = "no TMDb id" if job.tmdb_id is None else f"TMDb has no movie {job.tmdb_id}"
        if job.found_by_imdb_id:
            reason += f", where IMDb id {imdb_id} led"
        elif imdb_id is None:
            reason += "; no IMDb id"
        elif not self._config.find_by_imdb_id:
            reason += f"; {NOT_LOOKED_UP}"
        else:
            try:
                found = await self._client.find(imdb_id)
            except TmdbResponseError as error:
                self._settle(movie_id, self._without(job.tmdb_id, "failed", f"{reason}; {error}"))
                return
            if found is not None and found != job.tmdb_id:
                self._found[found].append((movie_id, imdb_id))
                return
            reason += f"; none with IMDb id {imdb_id}"
        self._settle(movie_id, self._without(job.tmdb_id, "missing", reason))
        if job.tmdb_id is not None:
            self._count_unknown()

    def _second_round(self) -> Iterator[Job]:
        """Jobs for ids found by IMDb id; copies of the records that exist already."""
        known = self._shards.records_of(set(self._found)) if self._found else {}
        for tmdb_id, movies in self._found.items():
            if tmdb_id not in known:
                yield Job(tmdb_id, movies, found_by_imdb_id=True)
                continue
            for movie_id, _ in movies:
                self._settle(movie_id, known[tmdb_id])

    def _settle_rest(self, pending: npt.NDArray[np.int64], reason: str) -> None:
        """Record every movie without a record from this run as failed."""
        for movie_id in pending.tolist():
            if movie_id not in self._settled:
                self._settle(movie_id, self._without(None, "failed", reason))

    def _without(self, tmdb_id: int | None, status: Status, error: str) -> TmdbRecord:
        return without_data(tmdb_id, status, error, self._now())

    def _settle(self, movie_id: int, record: TmdbRecord) -> None:
        """Take the record of a movie."""
        self._buffer.append((movie_id, record))
        self._settled.add(movie_id)
        self._tally.count(record.status)

    def _count_unknown(self) -> None:
        """Stop before a wrong address makes every movie count as missing.

        Raises:
            TmdbError: after ``ALL_UNKNOWN`` unknown ids without a known one.
        """
        self._unknown += 1
        if self._unknown >= ALL_UNKNOWN and not self._trusted and not self._tally.ok:
            self._buffer.clear()
            raise TmdbError(
                f"{self._config.base_url} knows none of the first {self._unknown} movies. Is "
                "tmdb.base_url right (https://api.themoviedb.org/3), and do the ids in links.csv "
                "come from TMDb? Nothing was recorded."
            )

    def _part_is_due(self) -> bool:
        """Whether many records are waiting, or any has waited long."""
        if not (self._trusted or self._tally.ok):
            return False
        waited = time.monotonic() - self._written_at
        return len(self._buffer) >= self._part_size or waited >= self._config.part_interval_s

    def _write_part(self, *, last: bool = False) -> asyncio.Task[None]:
        """Start writing the buffer as one part in a thread, if it is still due."""
        write = asyncio.create_task(self._write(last=last))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)
        return write

    async def _write(self, *, last: bool) -> None:
        # One part at a time: workers that fill the next one wait, so memory is bounded and a crash
        # loses little even if the disk is slower than TMDb.
        async with self._writing:
            if self._buffer and (last or self._part_is_due()):
                rows, self._buffer = self._buffer, []
                # Encoding takes milliseconds. In a thread it would take longer, because the two
                # threads would compete for the interpreter.
                await asyncio.to_thread(self._shards.store, self._encoded(rows))
                self._written_at = time.monotonic()

    def _encoded(self, rows: list[Row]) -> bytes:
        """The content of a part; a record that fits into no table has failed, alone."""
        try:
            return encode(rows)
        except _NOT_ENCODABLE:
            return encode([self._encodable(row) for row in rows])

    def _encodable(self, row: Row) -> Row:
        try:
            encode([row])
        except _NOT_ENCODABLE as error:
            movie_id, record = row
            reason = f"its record cannot be stored: {type(error).__name__}"
            return movie_id, self._without(record.tmdb_id, "failed", reason)
        return row

    async def _flush(self) -> None:
        """Write the remaining records, and wait until all are on disk."""
        self._write_part(last=True)
        await asyncio.gather(*self._writes)
