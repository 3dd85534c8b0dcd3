"""Complete crawls over real HTTP on loopback."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from rich.console import Console

from foundation.errors import LockedError, SchemaError
from foundation.lock import locked
from foundation.schemas import TMDB, TMDB_NUMERICS, check_schema
from foundation.storage import Storage
from ingest.config import DataConfig, TmdbConfig
from ingest.dataset import crawl_dataset, ingest, prepare_tables
from ingest.errors import TmdbAuthError, TmdbError
from ingest.tmdb import aio, client
from ingest.tmdb.crawl import ALL_UNKNOWN, CrawlSummary, crawl
from ingest.tmdb.credentials import TOKEN_VARIABLE, Credentials
from ingest.tmdb.progress import LogView, Tally, view
from ingest.tmdb.rate_limit import Backoff
from ingest.tmdb.records import decode_movie
from ingest.tmdb.shards import Shards

CREDENTIALS = Credentials(TOKEN_VARIABLE, "replay-read-access-token")
ENVIRON = {TOKEN_VARIABLE: CREDENTIALS.secret}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
QUICK = Backoff(first_s=0.01, longest_s=0.05)


@dataclass
class Crawler:
    """Crawls a source folder into a storage, with a constant clock."""

    source: Path
    storage: Storage

    @property
    def folder(self) -> Storage:
        return self.storage / "raw" / self.source.name

    def __call__(self, url: str, now: datetime = NOW, **settings: Any) -> CrawlSummary | None:
        """Fetch what is pending and merge, as ``crawl_dataset`` does."""
        config = TmdbConfig(**{"base_url": url, "requests_per_second": 1e6, **settings})
        prepare_tables(DataConfig(path=str(self.source)), self.storage / "raw")
        shards = Shards(self.folder)
        ids = (self.folder / "movies.parquet").read_table()["movie_id"].to_numpy()
        pending = shards.standing(
            ids, now=now, max_age_days=config.max_age_days, look_up=config.find_by_imdb_id
        ).pending
        summary = None
        if len(pending):
            links = (self.folder / "links.parquet").read_table()
            summary = aio.run(
                crawl(
                    links,
                    pending,
                    shards,
                    config,
                    CREDENTIALS,
                    LogView(),
                    now=lambda: now,
                    backoff=QUICK,
                )
            )
        shards.merge(ids)
        return summary

    def rows(self) -> dict[int, dict[str, Any]]:
        table = (self.folder / "tmdb.parquet").read_table()
        return {row["movie_id"]: row for row in table.to_pylist()}


@pytest.fixture
def crawler(tmp_path: Path) -> Callable[..., Crawler]:
    def make(source: Path, name: str = "artifacts") -> Crawler:
        return Crawler(source, Storage.at(tmp_path / name))

    return make


def test_all_of_ml_latest_small(
    replay: Any, ml_latest_small: Path, recorded: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    server = replay("--rate", "0")
    tmdb = TmdbConfig(base_url=server.url, requests_per_second=1e6)
    data, storage = DataConfig(path=str(ml_latest_small)), Storage.at(tmp_path)
    raw = ingest(data, tmdb, storage, environ=ENVIRON)
    assert raw.tmdb_coverage == {"ok": 9628, "missing": 114, "failed": 0}
    table = (raw.folder / "tmdb.parquet").read_table()
    check_schema(table.schema, TMDB, "tmdb.parquet")
    ids = table["movie_id"].to_pylist()
    assert ids == sorted((raw.folder / "movies.parquet").read_table()["movie_id"].to_pylist())
    implausible = {"budget": 0, "revenue": 0}
    for row in table.to_pylist():
        held = recorded.get(row["tmdb_id"], {}) if row["status"] == "ok" else {}
        for name in TMDB_NUMERICS:
            zero_is_null = name in ("budget", "revenue", "vote_average")
            expected = held.get(name) or (None if zero_is_null else held.get(name))
            if name in ("budget", "revenue") and expected is not None and expected < 1000:
                implausible[name] += 1
                expected = None
            assert row[name] == expected, (row["movie_id"], name)
    assert implausible == {"budget": 13, "revenue": 21}
    stats = server.stats()
    assert stats["duplicates"] == 0
    assert stats["resources"]["attempts_max"] == 1
    assert stats["requests"] == 9733 + 120 + 6  # distinct ids, lookups, what these found
    again = ingest(data, tmdb, storage, environ=ENVIRON)
    assert again.fingerprint == raw.fingerprint
    assert server.stats()["requests"] == stats["requests"]


def test_paces_itself_without_a_refusal(
    replay: Any, subset: Any, crawler: Any, shared: Path
) -> None:
    rate, count = 200, 400
    server = replay("--rate", str(rate), "--burst", str(rate / 2))
    summary = crawler(subset(count))(server.url, requests_per_second=rate)
    stats = server.stats()
    assert summary.ok + summary.missing == count
    assert stats["rate_limited"] == summary.refusals == 0
    assert stats["mean_rps"] >= 0.98 * rate


def test_slows_down_for_a_stricter_server(replay: Any, subset: Any, crawler: Any) -> None:
    server = replay("--rate", "150", "--burst", "20")
    summary = crawler(subset(300))(server.url, requests_per_second=1000.0)
    assert summary.ok + summary.missing == 300
    assert summary.refusals > 0
    assert server.stats()["duplicates"] == 0


def test_faults_leave_no_trace(replay: Any, subset: Any, crawler: Any) -> None:
    source = subset(1000)
    clean = crawler(source, "clean")
    clean(replay("--rate", "0").url)
    kinds = ("fail-500", "fail-503", "drop", "truncate-json", "html-instead", "hang", "slow-body")
    faults = [option for kind in kinds for option in (f"--{kind}", f"{0.2 / len(kinds):.5f}")]
    server = replay("--rate", "0", *faults, "--max-faults", "3", "--gzip", "0.3",
                    "--slow-body-s", "0.2", "--seed", "5")  # fmt: skip
    faulty = crawler(source, "faulty")
    summary = faulty(server.url, timeout_s=1.0)
    stats = server.stats()
    assert summary.failed == 0
    assert summary.retries > 100
    assert len(stats["faults"]) == len(kinds)
    assert stats["duplicates"] == 0
    left, right = (c.folder / "tmdb.parquet" for c in (clean, faulty))
    assert left.read_bytes() == right.read_bytes()


def test_faults_without_end(fake_tmdb: Any, dataset: Any, crawler: Any) -> None:
    links = [(n, f"{n:07d}", 100 + n) for n in range(1, 201)]
    fake_tmdb.movies = {100 + n: {"id": 100 + n} for n in range(1, 201) if n % 10}
    broken = {f"movie/{100 + n}" for n in range(10, 201, 10)}

    async def fail(_: int) -> web.Response | None:
        return web.Response(status=503) if fake_tmdb.requests[-1] in broken else None

    fake_tmdb.on_request = fail
    crawl_once = crawler(dataset(*links))
    summary = crawl_once(fake_tmdb.url)
    assert (summary.ok, summary.failed) == (180, 20)
    row = crawl_once.rows()[10]
    assert row["status"] == "failed"
    assert row["error"].startswith("movie/110: HTTP 503, ")
    fake_tmdb.on_request = None
    fake_tmdb.movies |= {100 + n: {"id": 100 + n} for n in range(10, 201, 10)}
    fake_tmdb.requests.clear()
    assert crawl_once(fake_tmdb.url).ok == 20
    assert set(fake_tmdb.requests) == broken
    assert {row["status"] for row in crawl_once.rows().values()} == {"ok"}


def test_a_server_that_goes_away(fake_tmdb: Any, dataset: Any, crawler: Any) -> None:
    links = [(n, f"{n:07d}", 100 + n) for n in range(1, 301)]
    fake_tmdb.movies = {100 + n: {"id": 100 + n} for n in range(1, 301)}

    async def go_away(count: int) -> web.Response | None:
        return web.Response(status=500) if count > 100 else None

    fake_tmdb.on_request = go_away
    crawl_once = crawler(dataset(*links))
    settings = {"max_attempts": 100, "give_up_after_s": 0.3}
    summary = crawl_once(fake_tmdb.url, **settings)
    assert "not answered usefully for 0.3 s" in summary.gave_up
    assert (summary.ok, summary.failed) == (100, 200)
    errors = {row["error"] for row in crawl_once.rows().values() if row["status"] == "failed"}
    assert any(error.startswith("not tried: ") for error in errors)
    fetched = {row["tmdb_id"] for row in crawl_once.rows().values() if row["status"] == "ok"}
    fake_tmdb.on_request = None
    fake_tmdb.requests.clear()
    assert crawl_once(fake_tmdb.url).ok == 200
    assert not fetched & {int(r.removeprefix("movie/")) for r in fake_tmdb.requests}


def test_refused_credentials_keep_what_was_fetched(
    fake_tmdb: Any, dataset: Any, crawler: Any
) -> None:
    links = [(n, f"{n:07d}", 100 + n) for n in range(1, 101)]
    fake_tmdb.movies = {100 + n: {"id": 100 + n} for n in range(1, 101)}

    async def refuse(count: int) -> web.Response | None:
        return web.Response(status=401) if count > 50 else None

    fake_tmdb.on_request = refuse
    crawl_once = crawler(dataset(*links))
    with pytest.raises(TmdbAuthError, match="TMDB_ACCESS_TOKEN must hold a v4"):
        crawl_once(fake_tmdb.url)
    assert len(fake_tmdb.requests) <= 50 + 32
    assert Shards(crawl_once.folder).coverage()["ok"] == 50


def test_ids_that_are_absent_unknown_shared_or_found(
    fake_tmdb: Any, dataset: Any, crawler: Any
) -> None:
    fake_tmdb.movies = {n: {"id": n, "vote_count": n} for n in (100, 200, 300)}
    fake_tmdb.by_imdb_id = {"tt0000003": 200, "tt0000004": 300, "tt0000005": 300, "tt0000006": 100}
    source = dataset(
        (1, "0000001", 100), (2, "0000002", 100),  # share an id
        (3, "0000003", 999),  # unknown id, found by IMDb id
        (4, "0000004", ""), (5, "0000005", ""),  # no id, both found at the same movie
        (6, "0000006", ""),  # found at a movie that another one links to
        (7, "0000007", 998), (8, "", 997), (9, "", ""),  # nowhere
    )  # fmt: skip
    crawl_once = crawler(source)
    crawl_once(fake_tmdb.url)
    rows = crawl_once.rows()
    found = {movie: row["vote_count"] for movie, row in rows.items() if row["status"] == "ok"}
    assert found == {1: 100, 2: 100, 3: 200, 4: 300, 5: 300, 6: 100}
    assert {movie: rows[movie]["error"] for movie in (7, 8, 9)} == {
        7: "TMDb has no movie 998; none with IMDb id tt0000007",
        8: "TMDb has no movie 997; no IMDb id",
        9: "no TMDb id; no IMDb id",
    }
    assert len(fake_tmdb.requests) == len(set(fake_tmdb.requests))


def test_lookup_by_imdb_id_can_be_switched_on_later(
    fake_tmdb: Any, dataset: Any, crawler: Any
) -> None:
    fake_tmdb.movies = {100: {"id": 100}, 200: {"id": 200}}
    fake_tmdb.by_imdb_id = {"tt0000002": 200}
    crawl_once = crawler(dataset((1, "0000001", 100), (2, "0000002", "")))
    crawl_once(fake_tmdb.url, find_by_imdb_id=False)
    assert fake_tmdb.requests == ["movie/100"]
    assert crawl_once(fake_tmdb.url, find_by_imdb_id=False) is None
    assert crawl_once(fake_tmdb.url).ok == 1
    assert fake_tmdb.requests == ["movie/100", "find/tt0000002", "movie/200"]


def test_stale_records_are_fetched_again(fake_tmdb: Any, dataset: Any, crawler: Any) -> None:
    fake_tmdb.movies = {100: {"id": 100, "vote_count": 1}, 200: {"id": 200}}
    crawl_once = crawler(dataset((1, "0000001", 100), (2, "0000002", 200), (3, "", "")))
    crawl_once(fake_tmdb.url)
    assert crawl_once(fake_tmdb.url, now=NOW + timedelta(days=179)) is None
    fake_tmdb.movies = {100: {"id": 100, "vote_count": 2}}
    fake_tmdb.requests.clear()

    async def fail(_: int) -> web.Response | None:
        return web.Response(status=503) if fake_tmdb.requests[-1] == "movie/200" else None

    fake_tmdb.on_request = fail
    summary = crawl_once(fake_tmdb.url, now=NOW + timedelta(days=181))
    rows = crawl_once.rows()
    assert rows[1]["vote_count"] == 2
    assert rows[1]["fetched_at"] == NOW + timedelta(days=181)
    # A failure does not replace the earlier record, and is tried again.
    assert (summary.failed, rows[2]["status"], rows[2]["fetched_at"]) == (1, "ok", NOW)
    assert crawl_once(fake_tmdb.url, now=NOW + timedelta(days=181)).pending == 1


@pytest.mark.parametrize(
    ("size", "interval", "parts"), [(2000, 1e9, 0), (1, 1e9, 1), (2000, 1e-9, 1)]
)
def test_records_are_written_when_they_are_many_or_have_waited(
    fake_tmdb: Any, dataset: Any, crawler: Any, size: int, interval: float, parts: int
) -> None:
    fake_tmdb.movies = {100 + n: {"id": 100 + n} for n in range(1, 21)}
    crawl_once = crawler(dataset(*((n, f"{n:07d}", 100 + n) for n in range(1, 21))))
    seen: list[int] = []

    async def look(count: int) -> None:
        # A worker sends the next request only after its first record is written, if that was due.
        if count == 10:
            seen.append(len(Shards(crawl_once.folder).files()))

    fake_tmdb.on_request = look
    crawl_once(fake_tmdb.url, concurrency=1, part_size=size, part_interval_s=interval)
    assert min(seen[0], 1) == parts
    assert crawl_once.rows().keys() == set(range(1, 21))


def test_a_wrong_address_does_not_make_all_movies_missing(
    fake_tmdb: Any, dataset: Any, crawler: Any
) -> None:
    links = [(n, f"{n:07d}", 100 + n) for n in range(1, 2 * ALL_UNKNOWN)]
    crawl_once = crawler(dataset(*links))
    with pytest.raises(TmdbError, match="knows none of the first"):
        crawl_once(fake_tmdb.url, part_size=10)
    assert not Shards(crawl_once.folder).files()


def test_records_of_another_schema_version_are_refused(
    fake_tmdb: Any, dataset: Any, crawler: Any
) -> None:
    fake_tmdb.movies = {100: {"id": 100}}
    crawl_once = crawler(dataset((1, "0000001", 100)))
    crawl_once(fake_tmdb.url)
    file = crawl_once.folder / "tmdb.parquet"
    old = file.read_table().replace_schema_metadata({"schema_version": "0"})
    pq.write_table(old, file.path)
    with pytest.raises(SchemaError, match=r"tmdb.parquet has schema version 0.*Delete the file"):
        crawl_once(fake_tmdb.url)


def test_a_second_crawl_in_the_same_folder_is_refused(dataset: Any, tmp_path: Path) -> None:
    storage = Storage.at(tmp_path / "artifacts")
    source = dataset((1, "0000001", 100))
    tables = prepare_tables(DataConfig(path=str(source)), storage / "raw")
    with locked(tables.folder), pytest.raises(LockedError, match=r"process \d+ on .* is writing"):
        crawl_dataset(tables, TmdbConfig(), CREDENTIALS)


def test_progress_is_a_bar_on_a_terminal() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with view(console) as shower:
        shower.show(Tally(total=10, ok=4, requests=7, retries=2, failed=1))
    assert "5/10" in screen.getvalue()
    assert "2 retries · 0 rate-limited · 1 failed" in screen.getvalue()


def test_no_terminal_no_bar(logged: list[str]) -> None:
    with view(Console(file=io.StringIO())) as shower:
        shower.show(Tally(total=10))
    assert logged[0].startswith("TMDb 0/10 movies")


def test_progress_is_logged(logged: list[str]) -> None:
    tally = Tally(total=10, ok=4, missing=1, requests=7, retries=2, refusals=1)
    LogView().show(tally)
    assert "5/10 movies" in logged[0]
    assert "2 retries, 1 rate-limited, 1 missing, 0 failed" in logged[0]
    assert tally.eta_s is not None
    assert math.isclose(tally.eta_s, tally.elapsed_s, rel_tol=0.5)


def test_a_record_that_fits_into_no_table_has_failed_alone(
    fake_tmdb: Any, dataset: Any, crawler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that decoding did not detect."""

    def decode(body: bytes, tmdb_id: int, fetched_at: Any) -> Any:
        record = decode_movie(body, tmdb_id, fetched_at)
        return record._replace(vote_count=2**70) if tmdb_id == 200 else record

    monkeypatch.setattr(client, "decode_movie", decode)
    fake_tmdb.movies = {n: {"id": n, "vote_count": n} for n in (100, 200, 300)}
    run = crawler(dataset((1, "1", 100), (2, "2", 200), (3, "3", 300)))
    run(fake_tmdb.url)
    shards = Shards(run.folder)
    assert shards.coverage() == {"ok": 2, "missing": 0, "failed": 1}
    assert shards.failures() == {2: "its record cannot be stored: OverflowError"}
    monkeypatch.undo()
    run(fake_tmdb.url)
    assert shards.coverage() == {"ok": 3, "missing": 0, "failed": 0}
