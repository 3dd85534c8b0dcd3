"""TMDb over HTTP: fetch one movie as one typed record.

Source: https://developer.themoviedb.org/docs/errors for the status codes.

Every answer falls into one class, and each class has one policy:

==============================================  ==================================================
answer                                          policy
==============================================  ==================================================
200 with a JSON object                          done
404 with TMDb's JSON error                      done: TMDb has no such record
429                                             pause and slow down (``RateLimiter``), retry
500, 502, 503, 504, lost connection, timeout,   retry after a pause, while attempts and budget
truncated or non-JSON body                      last; then the record has failed for this run
401, 403                                        the run ends: ``TmdbAuthError``
anything else, such as a body that is too long  the record has failed for this run
==============================================  ==================================================
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp
from yarl import URL

from ingest.config import TmdbConfig
from ingest.errors import TmdbAuthError, TmdbDownError, TmdbResponseError
from ingest.tmdb.credentials import Credentials
from ingest.tmdb.rate_limit import (
    Backoff,
    Deadline,
    RateLimiter,
    RetryBudget,
    Sleep,
    Watchdog,
    parse_retry_after,
)
from ingest.tmdb.records import (
    NotARecordError,
    TmdbRecord,
    decode_found,
    decode_movie,
)

MAX_REFUSALS: Final = 20
"""429 answers to one request after which its record has failed for this run."""

NOT_LOOKED_UP: Final = "not looked up by IMDb id: tmdb.find_by_imdb_id is off"
"""End of the reason of records that a run with the lookup switched on tries again."""

_MAX_SHOWN: Final = 200
"""Characters of a message of the server that are shown."""

GRACE: Final = 2
"""Failures beyond ``max_attempts`` that a record may have while no other request succeeds."""

MAX_BODY: Final = 4 << 20
"""Bytes of an answer, decompressed, after which it is not read on: the longest that TMDb has given
has 0.2 MB."""

_TRANSIENT: Final = frozenset({500, 502, 503, 504})

Decoded = TypeVar("Decoded")


@dataclass(slots=True)
class Traffic:
    """Counts of requests."""

    requests: int = 0
    retries: int = 0
    refusals: int = 0


class _Answer(NamedTuple):
    """One complete HTTP answer."""

    status: int
    body: bytes
    retry_after: float | None


class _TransientError(Exception):
    """A failure that a retry may not have."""


class TmdbClient:
    """Fetches records under the limits of ``config``; safe for many tasks at once.

    ::

        async with TmdbClient(config, credentials) as client:
            record = await client.movie(603)
    """

    def __init__(
        self,
        config: TmdbConfig,
        credentials: Credentials,
        *,
        rate_limiter: RateLimiter | None = None,
        backoff: Backoff | None = None,
        deadline: Deadline | None = None,
        sleep: Sleep = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Open no connection yet."""
        self.traffic = Traffic()
        base = URL(config.base_url.rstrip("/"))
        self._root = base.raw_path.rstrip("/")
        # A v3 key is part of the URL, so it must not be shown anywhere.
        self._movie = base.with_query(append_to_response="credits,keywords", **credentials.params)
        self._find = base.with_query(external_source="imdb_id", **credentials.params)
        self._config = config
        self._credentials = credentials
        self._rate_limiter = rate_limiter or RateLimiter(config.requests_per_second)
        self._backoff = backoff or Backoff()
        self._budget = RetryBudget()
        self._successes = 0
        self._deadline = deadline or Deadline(config.give_up_after_s)
        self._watchdog = Watchdog(config.timeout_s)
        self._sleep = sleep
        self._now = now

    async def __aenter__(self) -> TmdbClient:
        # Named here rather than by trust_env, which would read credentials from a .netrc as well.
        proxy = None
        if not urllib.request.proxy_bypass(self._movie.host or ""):
            proxy = urllib.request.getproxies().get(self._movie.scheme)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._config.concurrency, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=None),  # the watchdog's task
            headers={"Accept": "application/json", **self._credentials.headers},
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy,
        )
        self._watching = asyncio.create_task(self._watchdog.watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._session.close()

    async def movie(self, tmdb_id: int) -> TmdbRecord | None:
        """The record of a TMDb id; ``None`` if TMDb has none.

        Raises:
            TmdbResponseError: if it could not be fetched within the permitted retries.
            TmdbAuthError: if TMDb refuses the credentials.
            TmdbDownError: if TMDb has stopped answering.
        """
        return await self._get(
            self._movie, f"movie/{tmdb_id}", lambda body: decode_movie(body, tmdb_id, self._now())
        )

    async def find(self, imdb_id: str) -> int | None:
        """The TMDb id of the movie with an IMDb id (``tt0114709``); ``None`` if TMDb has none.

        Raises:
            TmdbError: as ``movie``.
        """
        return await self._get(self._find, f"find/{imdb_id}", decode_found)

    async def _get(
        self, base: URL, path: str, decode: Callable[[bytes], Decoded | None]
    ) -> Decoded | None:
        """The decoded answer, with retries; ``None`` for a 404."""
        url = base.with_path(f"{self._root}/{path}", encoded=True, keep_query=True)
        failures = held_against = refusals = 0
        successes = -1
        while True:
            sent_at = await self._rate_limiter.acquire()
            self.traffic.requests += 1
            try:
                answer = await self._ask(url)
                if answer.status != 429:
                    self._rate_limiter.accepted()
                    decoded = self._interpret(answer, path, decode)
                    self._deadline.renew()
                    self._budget.earn()
                    self._successes += 1
                    return decoded
            except _TransientError as error:
                problem = str(error)
            else:
                refusals += 1
                self._refused(path, sent_at, answer.retry_after, refusals)
                continue
            failures += 1
            self._check_patience(problem)
            # While no request succeeds, the server is at fault and not this record. Waiting is then
            # better than recording one failure after the other.
            isolated = self._successes != successes
            successes = self._successes
            held_against += isolated
            limit = self._config.max_attempts
            if held_against >= limit or failures >= limit + GRACE:
                raise TmdbResponseError(f"{path}: {problem}, {failures} times in a row")
            if isolated and not self._budget.spend():
                raise TmdbResponseError(f"{path}: {problem}; not retried, too many requests fail")
            self.traffic.retries += 1
            await self._sleep(self._backoff.pause(failures))

    async def _ask(self, url: URL) -> _Answer:
        """Send one request and read its answer.

        Raises:
            _TransientError: without the original exception, whose text may show the key.
        """
        try:
            with self._watchdog:
                response = await self._session.get(url, allow_redirects=False)
                body = await _body(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = _describe(error, self._config.timeout_s)
        else:
            retry_after = None
            if response.status == 429:
                headers = response.headers
                retry_after = parse_retry_after(
                    headers.get("Retry-After"), headers.get("Date"), self._now
                )
            if body is None:
                raise TmdbResponseError(
                    f"{url.path}: HTTP {response.status} with more than {MAX_BODY >> 20} MB"
                )
            return _Answer(response.status, body, retry_after)
        raise _TransientError(problem)

    def _interpret(
        self, answer: _Answer, path: str, decode: Callable[[bytes], Decoded | None]
    ) -> Decoded | None:
        """Classify an answer other than 429, by the table in the module's docstring."""
        status = answer.status
        if status == 200:
            try:
                return decode(answer.body)
            except NotARecordError as error:
                raise _TransientError(f"HTTP 200 with {error}") from None
        if status in (401, 403):
            raise TmdbAuthError(
                f"TMDb refused the credentials ({self._summary(answer)}). "
                f"{self._credentials.expectation}. See https://www.themoviedb.org/settings/api."
            )
        if status in _TRANSIENT:
            raise _TransientError(self._summary(answer))
        if status == 404:
            if not _parse(answer.body):
                raise _TransientError("HTTP 404 with a body that is not TMDb's JSON")
            return None
        hint = f"; is tmdb.base_url = {self._config.base_url!r} right?" if status < 400 else ""
        raise TmdbResponseError(f"{path}: TMDb answered {self._summary(answer)}{hint}")

    def _summary(self, answer: _Answer) -> str:
        """The status, with TMDb's own code and message if the body has them."""
        payload = _parse(answer.body) or {}
        message, code = payload.get("status_message"), payload.get("status_code")
        if not isinstance(message, str) or not message:
            return f"HTTP {answer.status}"
        code = code if type(code) is int and abs(code) < 10_000 else "unknown"
        shown = _printable(message.replace(self._credentials.secret, "***"))[:_MAX_SHOWN]
        return f"HTTP {answer.status}, status code {code}: {shown}"

    def _refused(self, path: str, sent_at: float, retry_after: float | None, refusals: int) -> None:
        """Handle a 429: the next ``acquire`` waits."""
        self.traffic.refusals += 1
        pause = self._rate_limiter.refused(sent_at, retry_after)
        if pause > self._deadline.limit_s:
            raise TmdbDownError(
                f"TMDb asks for a pause of {pause:.0f} s, longer than tmdb.give_up_after_s = "
                f"{self._deadline.limit_s:g}"
            )
        self._check_patience("HTTP 429, too many requests")
        if refusals >= MAX_REFUSALS:
            raise TmdbResponseError(f"{path}: HTTP 429, {refusals} times in a row")

    def _check_patience(self, problem: str) -> None:
        if self._deadline.exhausted:
            raise TmdbDownError(
                f"TMDb has not answered usefully for {self._deadline.limit_s:g} s; "
                f"the last answer: {problem}"
            )


def _parse(body: bytes) -> dict[str, Any] | None:
    """The JSON object in ``body``; ``None`` if it holds anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


async def _body(response: aiohttp.ClientResponse) -> bytes | None:
    """The body of an answer; None if it is longer than ``MAX_BODY``.

    The connection returns to the pool, or is closed if the body was not read to its end.
    """
    parts, size = [], 0
    try:
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > MAX_BODY:
                return None
    finally:
        if response.content.at_eof():
            response.release()
        else:
            response.close()
    return b"".join(parts)


def _printable(text: str) -> str:
    """A server's text for files and terminals: without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def _describe(error: BaseException, timeout_s: float) -> str:
    """What failed, from the type of the exception only: its text may show the URL."""
    if isinstance(error, TimeoutError):
        return f"no whole answer within {timeout_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error.strerror or type(error.os_error).__name__
        return f"cannot connect to {error.host}:{error.port}: {reason}"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke in the middle of the answer"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return "the connection broke before the answer"
    return f"the request failed with {type(error).__name__}"
