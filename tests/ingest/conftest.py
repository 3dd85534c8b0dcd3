"""Shared by the tests of ``ingest``: the replay server, small data sets, servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "replay-read-access-token"


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Messages that the package logs during the test, from level INFO up."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ingest")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with development data beside the repository."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"the shared development data are not beside the repository ({folder.name}/)")
    return folder


@pytest.fixture(scope="session")
def ml_latest_small(shared: Path) -> Path:
    return shared / "data" / "ml-latest-small"


@pytest.fixture(scope="session")
def recorded(shared: Path) -> dict[int, dict[str, Any]]:
    """What the replay server holds, by TMDb id, read independently of the code under test."""
    with gzip.open(shared / "data" / "tmdb" / "movies.jsonl.gz", "rt", encoding="utf-8") as lines:
        return {record["id"]: record for record in map(json.loads, lines)}


@dataclass
class Replay:
    """A running replay server."""

    process: subprocess.Popen[str]
    url: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._root}/__stats", timeout=10) as answer:
            stats: dict[str, Any] = json.load(answer)
            return stats

    def reset(self) -> None:
        request = urllib.request.Request(f"{self._root}/__reset", method="POST")
        urllib.request.urlopen(request, timeout=10).close()

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/3")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=10)


@pytest.fixture
def replay(shared: Path) -> Iterator[Callable[..., Replay]]:
    """Starts replay servers: ``replay("--rate", "0")``."""
    started: list[Replay] = []

    def start(*options: str) -> Replay:
        data = shared / "data" / "tmdb" / "movies.jsonl.gz"
        process = subprocess.Popen(
            [
                sys.executable,
                str(shared / "tools" / "tmdb_replay.py"),
                *("--data", str(data), "--port", "0", *options),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        # The server says where it listens once it does.
        url = process.stdout.readline().split()[-1]
        started.append(Replay(process, url))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def subset(ml_latest_small: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with the first movies of ml-latest-small, each rated once."""

    def make(count: int, name: str = "subset") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        movies = _rows(ml_latest_small / "movies.csv")[: count + 1]
        links = _rows(ml_latest_small / "links.csv")[: count + 1]
        ratings = [["1", movie[0], "4.0", "1000000000"] for movie in movies[1:]]
        header = ["userId", "movieId", "rating", "timestamp"]
        for file, rows in {
            "movies.csv": movies,
            "links.csv": links,
            "ratings.csv": [header, *ratings],
        }.items():
            with (folder / file).open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows(rows)
        return folder

    return make


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``python -m ingest`` as a process of its own; none outlives the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*options: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest", *options],
            cwd=REPOSITORY,
            env={**os.environ, "TMDB_ACCESS_TOKEN": TOKEN, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


@dataclass
class FakeClock:
    """Time that passes only when somebody sleeps."""

    time: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)  # no waiting: only lets other tasks run, as a real sleep would


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def serve() -> Callable[[Handler], contextlib.AbstractAsyncContextManager[str]]:
    """An HTTP server on loopback that answers every request with one handler; its base URL."""

    @contextlib.asynccontextmanager
    async def serving(handler: Handler) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/3"
        finally:
            await runner.cleanup()

    return serving


@pytest.fixture
def serve_in_thread(
    serve: Callable[[Handler], contextlib.AbstractAsyncContextManager[str]],
) -> Iterator[Callable[[Handler], str]]:
    """The same, for clients that block: the server has a thread and a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = contextlib.AsyncExitStack()

    def start(handler: Handler) -> str:
        entering = stack.enter_async_context(serve(handler))
        return asyncio.run_coroutine_threadsafe(entering, loop).result(10).removesuffix("/3")

    yield start
    asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


class FakeTmdb:
    """TMDb in this process, with a hook at each request; serves ``movies`` by TMDb id."""

    def __init__(self) -> None:
        self.movies: dict[int, dict[str, Any]] = {}
        self.by_imdb_id: dict[str, int] = {}
        self.requests: list[str] = []
        self.on_request: Callable[[int], Awaitable[web.StreamResponse | None] | None] | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        what = request.path.removeprefix("/3/")
        self.requests.append(what)
        if self.on_request is not None:
            pending = self.on_request(len(self.requests))
            answer = await pending if pending is not None else None
            if answer is not None:
                return answer
        kind, _, name = what.partition("/")
        if kind == "find":
            found = self.by_imdb_id.get(name)
            results = [] if found is None else [{"id": found}]
            return web.json_response({"movie_results": results})
        movie = self.movies.get(int(name))
        if movie is None:
            return web.json_response({"status_code": 34, "status_message": "None."}, status=404)
        return web.json_response(movie)


@pytest.fixture
def fake_tmdb(serve_in_thread: Callable[[Handler], str]) -> FakeTmdb:
    fake = FakeTmdb()
    fake.url = f"{serve_in_thread(fake.handle)}/3"
    return fake


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Path]:
    """Makes a data set with the given links (movie id, IMDb digits, TMDb id)."""

    def make(*links: tuple[int, str, int | str], name: str = "own") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        movies = "".join(f"{movie},Movie {movie} (2000),Drama\n" for movie, _, _ in links)
        ratings = "".join(f"1,{movie},3.5,1000000000\n" for movie, _, _ in links)
        ids = "".join(f"{movie},{imdb},{tmdb}\n" for movie, imdb, tmdb in links)
        (folder / "movies.csv").write_text(f"movieId,title,genres\n{movies}")
        (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{ratings}")
        (folder / "links.csv").write_text(f"movieId,imdbId,tmdbId\n{ids}")
        return folder

    return make
