"""Limits on the time and the bytes that a request's head and body may take, before anything else is
done for it: slow and oversized clients do not take the places of others."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD: Final = 1 << 15
"""Bytes of the request line and all headers."""
SECONDS: Final = 10.0
"""Within which a request's head must be there, and then its body."""
MOST_CONNECTIONS: Final = 2048
"""Connections at a time; requests on further ones get 503."""


class Door(HttpToolsProtocol):
    """Uvicorn's protocol of a connection, with limits on the head of a request.

    Uvicorn has none of these: its only timeout is that of idle connections between requests.
    """

    seconds: float = SECONDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._head = 0
        """Bytes of the head that is being received, as far as they are parsed."""
        self._kept = 0
        """Bytes that the parser keeps, because no end of a line has come with them."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, unless the head gets too large."""
        if self._timer is None and not self._is_answering:
            self._start_timer()  # the idle connection's has been stopped by these bytes
        self._kept += len(data)
        super().data_received(data)
        if self._kept > LARGEST_HEAD:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        self._head = self._kept = 0
        if self._timer is None:
            self._start_timer()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the address has come.

        Raises:
            ValueError: as ``on_header``.
        """
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come.

        Raises:
            ValueError: if the head is too large; the parser then ends, and the connection too.
        """
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has come."""
        self._stop_timer()
        self._kept = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body has come."""
        self._kept = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come."""
        self._kept = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed."""
        if self._head > LARGEST_HEAD:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            self._stop_timer()
            super().send_400_response(msg)

    @property
    def _is_answering(self) -> bool:
        """Whether a request has come whose response has not been sent."""
        return self.cycle is not None and not self.cycle.response_complete

    def _count(self, *parts: bytes) -> None:
        self._kept = 0
        self._head += sum(map(len, parts))
        if self._head > LARGEST_HEAD:
            raise ValueError("the head is too large")

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.seconds, self._end)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        if self._is_answering:
            self._start_timer()  # the head of a further request may wait that long
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer and close the connection."""
        self._stop_timer()
        if not self.transport.is_closing():
            line = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            self.transport.write(f"{line}content-length: 0\r\nconnection: close\r\n\r\n".encode())
            self.transport.close()


class WholeBody:
    """Passes a request on when its whole body is there, in time and within a size."""

    def __init__(self, app: ASGIApp, largest: int, seconds: float = SECONDS) -> None:
        self._app = app
        self._largest = largest
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._body(receive)
        except TimeoutError:
            detail = f"the body took more than {self._seconds:g} s; send it at once"
            await _refusal(408, detail)(scope, receive, send)
            return
        if body is None:
            return  # the client has gone
        if len(body) > self._largest:
            detail = f"the body is larger than {self._largest:,} bytes; send fewer ratings"
            await _refusal(413, detail)(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, or as much as shows that it is too large; None if the client has gone."""
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if not message.get("more_body", False) or len(body) > self._largest:
                return body


def _refusal(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, {"Connection": "close"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` with the body in one message before what follows."""
    is_first = True

    async def replay() -> Message:
        nonlocal is_first
        if is_first:
            is_first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
