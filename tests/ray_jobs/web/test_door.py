"""Clients that send slowly, endlessly or too much, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ray_jobs.web.app import MOST_WAITING
from ray_jobs.web.deployment import listening
from ray_jobs.web.door import LARGEST_HEAD, Door, WholeBody
from ray_jobs.web.middleware import Waiting

LARGEST: Final = 1 << 18
SECONDS: Final = 1.0


class Quick(Door):
    seconds = SECONDS


async def size(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


async def slow(request: Request) -> JSONResponse:
    """Answers after the time for a head is over."""
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 2 * SECONDS)
    return JSONResponse({"bytes": 0})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    routes = [Route("/", size, methods=["GET", "POST"]), Route("/slow", slow)]
    app = Starlette(routes=routes)
    app.add_middleware(Waiting, most=MOST_WAITING)
    app.add_middleware(WholeBody, largest=LARGEST, seconds=SECONDS)
    config = uvicorn.Config(app, http=Quick, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with listening("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        yield client


def answer(client: socket.socket) -> str:
    """Everything until the server closes the connection."""
    parts = []
    try:
        while part := client.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:  # it closed while more was being sent
        pass
    return b"".join(parts).decode()


def is_served(port: int) -> bool:
    body = b"x" * LARGEST
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", body, timeout=30) as found:
        return bool(json.load(found)["bytes"] == LARGEST)


POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


def test_slow_bodies_take_no_place_of_others_and_end_in_time(port: int) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(port)) for _ in range(2 * MOST_WAITING)]
        for client in slow:
            client.sendall(POST % 10 + b"x")
        assert is_served(port)
        for client in slow:
            said = answer(client)
            assert said.startswith("HTTP/1.1 408 ")
            assert "the body took more than 1 s" in said


@pytest.mark.parametrize(
    "start", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: abc"]
)
def test_a_slow_head_ends_in_time(start: bytes, port: int) -> None:
    began = time.monotonic()
    with connected(port) as client:
        client.sendall(start)
        assert answer(client).startswith("HTTP/1.1 408 ")
    assert time.monotonic() - began < 20 * SECONDS
    assert is_served(port)


def test_a_slow_head_after_another_request_ends_in_time(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"\r\nGET / HT")
        assert answer(client).startswith("HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX-Long: " + b"x" * (1 << 24),
        b"GET / HTTP/1.1\r\nX-Long: " + b"x" * LARGEST_HEAD + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(LARGEST_HEAD)),
        b"GET /?" + b"x" * (1 << 24),
    ],
    ids=["endless line", "long line", "many lines", "long address"],
)
def test_a_large_head_is_refused_and_not_kept(head: bytes, port: int) -> None:
    with connected(port) as client:
        with suppress(ConnectionError):  # the server does not read all of it
            client.sendall(head)
        said = answer(client)
        assert said.startswith("HTTP/1.1 431 ") or not said
    assert is_served(port)


def test_a_large_body_is_refused_before_its_end(port: int) -> None:
    with connected(port) as client:
        client.sendall(POST % 10**9 + b"x" * (LARGEST + 1))
        said = answer(client)
        assert said.startswith("HTTP/1.1 413 ")
        assert "larger than 262,144 bytes" in said


@pytest.mark.parametrize("size", [1, 30_000, 33_000, 100_000, LARGEST])
@pytest.mark.parametrize("is_apart", [True, False])
def test_bodies_of_every_permitted_size_are_served(size: int, is_apart: bool, port: int) -> None:
    with connected(port) as client:
        for _ in range(2):
            head, body = POST % size, b"x" * size
            for part in (head, body) if is_apart else (head + body,):
                client.sendall(part)
            assert client.recv(1 << 16).endswith(b'{"bytes":%d}' % size)


def test_a_head_below_the_limit_is_served_in_one_part_and_in_several(port: int) -> None:
    headers = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(30))
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"
    for size in (len(head), 7_000, 500):
        with connected(port) as client:
            for start in range(0, len(head), size):
                client.sendall(head[start : start + size])
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_a_slow_answer_is_not_cut_by_what_comes_meanwhile(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        client.sendall(b"\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_many_requests_at_once_are_served(port: int) -> None:
    count = 300
    with connected(port) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * (count - 1))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer(client).count("HTTP/1.1 200 ") == count


def test_bodies_in_parts_and_several_requests_are_served(port: int) -> None:
    with connected(port) as client:
        for _ in range(3):
            client.sendall(POST % 4)
            client.sendall(b"ab")
            client.sendall(b"cd")
            assert client.recv(1 << 16).endswith(b'{"bytes":4}')


def test_a_client_that_goes_away_leaves_nothing(port: int) -> None:
    for _ in range(2 * MOST_WAITING):
        with connected(port) as client:
            client.sendall(POST % 10 + b"x")
    assert is_served(port)
