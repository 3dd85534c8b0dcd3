"""The client against a server with one kind of failure at a time."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import traceback
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from ingest.config import TmdbConfig
from ingest.errors import TmdbAuthError, TmdbDownError, TmdbResponseError
from ingest.tmdb.client import MAX_REFUSALS, TmdbClient
from ingest.tmdb.credentials import KEY_VARIABLE, TOKEN_VARIABLE, Credentials
from ingest.tmdb.rate_limit import Backoff, Deadline, RateLimiter
from ingest.tmdb.records import TmdbRecord

KEY = "fedcba9876543210fedcba9876543210"
CREDENTIALS = Credentials(KEY_VARIABLE, KEY)
MOVIE = {"id": 5, "title": "Four Rooms", "budget": 4000000}
Answer = Callable[[web.Request], web.StreamResponse]


def movie() -> web.Response:
    return web.json_response(MOVIE)


def error(status: int, code: int, **headers: str) -> web.Response:
    body = {"success": False, "status_code": code, "status_message": "Because."}
    return web.json_response(body, status=status, headers=headers)


@pytest.fixture
def ask(serve: Any, clock: Any) -> Any:
    """Requests movie 5; the server sends the scripted answers one after the other."""

    def go(
        *answers: Any,
        config: dict[str, Any] | None = None,
        credentials: Credentials = CREDENTIALS,
        call: str = "movie",
    ) -> tuple[Any, TmdbClient, list[web.Request]]:
        requests: list[web.Request] = []

        async def handler(request: web.Request) -> web.StreamResponse:
            requests.append(request)
            answer = answers[min(len(requests), len(answers)) - 1]
            if callable(answer):
                answer = answer(request)
            result: web.StreamResponse = await answer if asyncio.iscoroutine(answer) else answer
            return result

        async def run() -> tuple[Any, TmdbClient]:
            async with serve(handler) as url:
                settings = TmdbConfig(**{"base_url": url, "timeout_s": 5.0, **(config or {})})
                client = TmdbClient(
                    settings,
                    credentials,
                    rate_limiter=RateLimiter(40.0, clock=clock, sleep=clock.sleep),
                    backoff=Backoff(),
                    deadline=Deadline(settings.give_up_after_s, clock),
                    sleep=clock.sleep,
                )
                async with client:
                    ask_for = client.movie(5) if call == "movie" else client.find("tt0113101")
                    return await ask_for, client

        record, client = asyncio.run(run())
        return record, client, requests

    return go


def test_a_movie_with_credits_and_keywords_in_one_request(ask: Any) -> None:
    record, client, requests = ask(lambda _: movie())
    assert isinstance(record, TmdbRecord)
    assert (record.tmdb_id, record.budget) == (5, 4000000)
    assert requests[0].path == "/3/movie/5"
    assert requests[0].query["append_to_response"] == "credits,keywords"
    assert requests[0].query["api_key"] == KEY
    assert "Authorization" not in requests[0].headers
    assert client.traffic.requests == 1


def test_a_token_is_sent_as_a_header_only(ask: Any) -> None:
    _, _, requests = ask(lambda _: movie(), credentials=Credentials(TOKEN_VARIABLE, "token"))
    assert requests[0].headers["Authorization"] == "Bearer token"
    assert "api_key" not in requests[0].query


def test_an_unknown_id_is_no_error(ask: Any) -> None:
    assert ask(lambda _: error(404, 34))[0] is None


def test_find(ask: Any) -> None:
    found = {"movie_results": [{"id": 5}], "tv_results": []}
    assert ask(lambda _: web.json_response(found), call="find")[0] == 5
    assert ask(lambda _: web.json_response({"movie_results": []}), call="find")[0] is None


async def cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b"{")
    assert request.transport is not None
    request.transport.close()
    return response


def html(status: int) -> web.Response:
    return web.Response(text="<html>busy</html>", content_type="text/html", status=status)


@pytest.mark.parametrize(
    "fault",
    [
        lambda _: error(500, 11),
        lambda _: error(500, 15),
        lambda _: error(503, 9),
        lambda _: html(502),
        lambda _: html(504),
        lambda _: html(200),
        lambda _: html(404),
        lambda _: web.Response(body=json.dumps(MOVIE).encode()[:-5]),
        lambda _: web.Response(body=b""),
        lambda _: web.Response(body=b"[1]"),
        lambda _: web.json_response({"id": 6}),
        cut_off,
    ],
)
def test_a_transient_fault_is_asked_again(ask: Any, clock: Any, fault: Any) -> None:
    record, client, requests = ask(fault, fault, lambda _: movie())
    assert record.budget == 4000000
    assert len(requests) == 3
    assert client.traffic.retries == 2
    assert 0.25 + 0.5 <= sum(clock.slept) <= 0.5 + 1.0 + 0.1


def test_a_hanging_answer_is_given_up(ask: Any) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    record, _, _ = ask(hang, lambda _: movie(), config={"timeout_s": 0.2})
    assert record.budget == 4000000


def test_a_compressed_answer(ask: Any) -> None:
    def compressed(_: web.Request) -> web.Response:
        response = movie()
        response.enable_compression(web.ContentCoding.gzip)
        return response

    assert ask(compressed)[0].budget == 4000000


def test_faults_without_end_fail_the_record(ask: Any) -> None:
    with pytest.raises(TmdbResponseError, match=r"HTTP 500, status code 11: Because\., 5 times"):
        ask(lambda _: error(500, 11), config={"max_attempts": 3})


@pytest.mark.parametrize("status", [400, 405, 406, 422])
def test_other_errors_are_not_asked_again(ask: Any, status: int) -> None:
    with pytest.raises(TmdbResponseError, match=f"HTTP {status}"):
        ask(lambda _: error(status, 5), lambda _: movie())


def test_redirects_are_not_followed(ask: Any) -> None:
    with pytest.raises(TmdbResponseError, match="base_url"):
        ask(lambda _: web.Response(status=301, headers={"Location": "http://127.0.0.1:1/"}))


def test_an_odd_value_costs_only_itself(ask: Any) -> None:
    record, *_ = ask(lambda _: web.json_response(MOVIE | {"runtime": "long"}))
    assert (record.budget, record.runtime) == (4000000, None)
    assert record.error == "left out: runtime: 'long'"


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_a_long_answer_is_not_read_to_its_end(ask: Any, encoding: str) -> None:
    """A few kilobytes that unpack to 64 MB, and the same unpacked."""
    body = json.dumps(MOVIE | {"pad": "x" * (64 << 20)}).encode()
    packed = {"identity": body, "gzip": gzip.compress(body), "deflate": zlib.compress(body)}
    headers = {} if encoding == "identity" else {"Content-Encoding": encoding}
    with pytest.raises(TmdbResponseError, match="movie/5: HTTP 200 with more than 4 MB"):
        ask(lambda _: web.Response(body=packed[encoding], headers=headers))


def test_an_endless_answer_is_not_read_to_its_end(ask: Any) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * (1 << 16))
        return response

    with pytest.raises(TmdbResponseError, match="more than 4 MB"):
        ask(endless)


def test_a_servers_text_is_shown_without_control_characters_and_the_credential(ask: Any) -> None:
    text = f"\x1b[31mred\r\nkey {CREDENTIALS.secret}\x00 \u202e {'x' * 500}"
    with pytest.raises(TmdbResponseError) as caught:
        ask(lambda _: web.json_response({"status_message": text, "status_code": 5}, status=422))
    shown = str(caught.value)
    assert shown.isprintable()
    assert CREDENTIALS.secret not in shown
    assert "[31mred" in shown
    assert len(shown) < 300


@pytest.mark.parametrize(
    "body",
    [
        {"status_message": {"deep": [1] * 1000}, "status_code": 5},
        {"status_message": "x", "status_code": {"a": "b" * 1000}},
        {"status_message": None, "status_code": None},
    ],
)
def test_an_error_of_another_shape_is_shown_shortly(ask: Any, body: Any) -> None:
    with pytest.raises(TmdbResponseError) as caught:
        ask(lambda _: web.json_response(body, status=422))
    assert "HTTP 422" in str(caught.value)
    assert len(str(caught.value)) < 100


def test_a_deeply_nested_error_is_shown_by_its_status(ask: Any) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(TmdbResponseError, match=r"TMDb answered HTTP 422$"):
        ask(lambda _: web.Response(text=deep, status=422, content_type="application/json"))


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("code", [3, 7, 10, 14])
def test_refused_credentials_stop_everything(ask: Any, status: int, code: int) -> None:
    with pytest.raises(TmdbAuthError, match=f"{KEY_VARIABLE} must hold a v3") as caught:
        ask(lambda _: error(status, code))
    assert f"status code {code}" in str(caught.value)
    with pytest.raises(TmdbAuthError, match=f"{TOKEN_VARIABLE} must hold a v4"):
        ask(lambda _: error(status, code), credentials=Credentials(TOKEN_VARIABLE, "x"))


def http_date(seconds: float) -> str:
    return format_datetime(
        datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC), usegmt=True
    )


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        (lambda: {"Retry-After": "7"}, 7, 7.1),
        (lambda: {"Retry-After": http_date(30)}, 27, 31),
        (dict, 1, 1.1),
        (lambda: {"Retry-After": "later"}, 1, 1.1),
    ],
)
def test_too_many_requests(ask: Any, clock: Any, headers: Any, least: float, most: float) -> None:
    def refuse(_: web.Request) -> web.Response:
        return web.Response(status=429, text="slow down", headers=headers())

    record, client, _ = ask(refuse, lambda _: movie())
    assert record.budget == 4000000
    assert least <= sum(clock.slept) <= most
    assert (client.traffic.refusals, client.traffic.retries) == (1, 0)


def test_refusals_without_end_fail_the_record(ask: Any) -> None:
    config = {"give_up_after_s": 1e6}
    with pytest.raises(TmdbResponseError, match=f"HTTP 429, {MAX_REFUSALS} times"):
        ask(lambda _: error(429, 25, **{"Retry-After": "1"}), config=config)


def test_a_pause_that_is_too_long_ends_the_run(ask: Any) -> None:
    with pytest.raises(TmdbDownError, match="pause of 3600 s"):
        ask(lambda _: error(429, 25, **{"Retry-After": "3600"}))


def test_silence_for_too_long_ends_the_run(ask: Any) -> None:
    config = {"give_up_after_s": 10.0, "max_attempts": 100}
    with pytest.raises(TmdbDownError, match=r"not answered usefully for 10 s.*HTTP 503"):
        ask(lambda _: error(503, 9), config=config)


def test_a_server_that_is_not_there() -> None:
    async def run() -> None:
        config = TmdbConfig(base_url="http://127.0.0.1:1/3", max_attempts=1)
        async with TmdbClient(config, CREDENTIALS) as client:
            await client.movie(5)

    with pytest.raises(TmdbResponseError, match=r"cannot connect to 127\.0\.0\.1:1"):
        asyncio.run(run())


@pytest.mark.parametrize(
    "fault",
    [
        lambda _: error(500, 11),
        lambda _: error(401, 7),
        lambda _: error(422, 5),
        lambda _: html(200),
        lambda _: web.Response(status=200, headers={"Content-Encoding": "gzip"}, body=b"no gzip"),
        lambda _: web.Response(status=301, headers={"Location": "nonsense://["}),
        cut_off,
    ],
)
def test_the_key_is_in_no_message_traceback_or_log(
    ask: Any, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises((TmdbResponseError, TmdbAuthError)) as caught:
        ask(fault, config={"max_attempts": 2})
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    chain: BaseException | None = caught.value
    while chain is not None:
        shown += f"{chain!r}{chain}"
        chain = chain.__context__
    assert KEY not in shown
