"""Crawls that are killed, interrupted or run twice, as real processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web

pytestmark = pytest.mark.system

MOVIES = 400
PART = 20


@pytest.fixture
def served(fake_tmdb: Any) -> Any:
    fake_tmdb.movies = {
        1000 + n: {"id": 1000 + n, "budget": 1000 * n} for n in range(1, MOVIES + 1)
    }
    return fake_tmdb


@pytest.fixture
def command(served: Any, dataset: Any, tmp_path: Path, spawn: Any) -> Callable[..., Any]:
    source = dataset(*((n, f"{n:07d}", 1000 + n) for n in range(1, MOVIES + 1)))

    def start(*more: str) -> Any:
        settings = {
            "data.path": source,
            "tmdb.base_url": served.url,
            "tmdb.requests_per_second": 1e6,
            "tmdb.part_size": PART,
        }
        options = [x for key, value in settings.items() for x in ("--set", f"{key}={value}")]
        return spawn("tmdb", "--storage", str(tmp_path / "artifacts"), *options, *more)

    return start


def recorded(folder: Path) -> set[int]:
    """TMDb ids in the Parquet files, all of which must be complete."""
    files = [*folder.glob("tmdb.parts/*.parquet"), *folder.glob("tmdb.parquet")]
    return {i for file in files for i in pq.read_table(file)["tmdb_id"].to_pylist()}


@pytest.mark.parametrize("at", [1, 30, 150, 290, MOVIES])
def test_kill_minus_nine(served: Any, command: Any, tmp_path: Path, at: int) -> None:
    folder = tmp_path / "artifacts" / "raw" / "own"

    async def kill(count: int) -> None:
        if count == at:
            process.kill()

    served.on_request = kill
    process = command()
    process.wait(30)
    assert process.returncode == -signal.SIGKILL
    before = recorded(folder)
    # 32 requests are in progress, 32 workers wait for the disk, two parts are in memory.
    assert len(before) >= at - 2 * 32 - 2 * PART
    served.on_request = None
    served.requests.clear()
    process = command()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    asked = {int(request.removeprefix("movie/")) for request in served.requests}
    assert not asked & before
    assert asked | before == set(served.movies)
    assert not list(folder.glob("tmdb.parts")), out
    rows = pq.read_table(folder / "tmdb.parquet").to_pylist()
    assert [row["movie_id"] for row in rows] == list(range(1, MOVIES + 1))
    assert all(row["status"] == "ok" and row["budget"] == 1000 * row["movie_id"] for row in rows)
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("at", [40, 333])
def test_control_c(served: Any, command: Any, tmp_path: Path, at: int) -> None:
    pressed: list[float] = []

    async def interrupt(count: int) -> web.Response | None:
        if count < at:
            return None
        if count == at:
            pressed.append(time.monotonic())
            os.kill(process.pid, signal.SIGINT)
        # Further requests fail, until the client has ended.
        raise web.HTTPServiceUnavailable

    served.on_request = interrupt
    process = command()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - pressed[0] < 2
    assert process.returncode == 130
    assert "What was fetched is kept" in err
    assert "Traceback" not in err
    folder = tmp_path / "artifacts" / "raw" / "own"
    before = recorded(folder)
    assert at - 32 <= len(before) <= at
    served.on_request = None
    served.requests.clear()
    process = command()
    process.communicate(timeout=30)
    assert {1000 + n for n in range(1, MOVIES + 1)} - before == {
        int(request.removeprefix("movie/")) for request in served.requests
    }


def test_two_crawls_in_one_folder(served: Any, command: Any) -> None:
    refused: list[Any] = []

    async def start_another(count: int) -> None:
        if count == 1:
            second = command()
            _, err = second.communicate(timeout=30)
            refused.append((second.returncode, err))

    served.on_request = start_another
    first = command()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    code, message = refused[0]
    assert code == 1
    assert f"process {first.pid} on" in message
    assert "is writing" in message
    assert len(served.requests) == MOVIES


def test_limit_fetches_some_and_the_next_run_the_rest(served: Any, command: Any) -> None:
    out, _ = command("--limit", "100", "--json").communicate(timeout=30)
    summary = json.loads(out)
    assert summary["crawl"]["ok"] == len(served.requests) == 100
    assert summary["tmdb"] == {}
    assert not any("token" in notice for notice in summary["notices"])
    assert any("100 movies have been tried" in notice for notice in summary["notices"])
    out, _ = command("--dry-run", "--json").communicate(timeout=30)
    assert json.loads(out)["tmdb"]["to_fetch"] == 300
    assert len(served.requests) == 100
    out, _ = command("--json").communicate(timeout=30)
    assert json.loads(out)["tmdb"] == {"ok": 400, "missing": 0, "failed": 0}
    assert len(served.requests) == 400


def command_line(pid: int) -> str:
    """The command line in the process list; empty where the system has no /proc."""
    file = Path(f"/proc/{pid}/cmdline")
    return file.read_text() if file.exists() else ""


def test_the_token_is_nowhere(served: Any, command: Any, tmp_path: Path) -> None:
    secret = "replay-read-access-token"
    seen: list[str] = []

    async def look(count: int) -> web.Response | None:
        if count == 1:
            seen.append(command_line(process.pid))
        return web.Response(status=500) if count % 7 == 0 else None

    served.on_request = look
    process = command()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert secret not in "".join([out, err, *seen])
    for file in (tmp_path / "artifacts").rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()
