"""An HTTP server on this machine that answers like TMDb, for sources with their own records."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

from ingest.sources.base import TmdbRecords
from ingest.tmdb.credentials import TOKEN_VARIABLE, Credentials

CREDENTIALS: Final = Credentials(TOKEN_VARIABLE, "synthetic")
"""The credential that the server accepts; the user's own is never sent to it."""


@asynccontextmanager
async def serving(records: TmdbRecords) -> AsyncIterator[str]:
    """Serve ``records`` for the length of the block; yields the base URL."""
    app = web.Application(middlewares=[_authenticated])
    app[_RECORDS] = records
    app.router.add_get("/3/movie/{tmdb_id}", _movie)
    app.router.add_get("/3/find/{imdb_id}", _find)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/3"
    finally:
        await runner.cleanup()


_RECORDS: Final = web.AppKey("records", TmdbRecords)


@web.middleware
async def _authenticated(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.headers.get("Authorization") != CREDENTIALS.headers["Authorization"]:
        return _error(401, 7, "Invalid API key: You must be granted a valid key.")
    answer: web.StreamResponse = await handler(request)
    return answer


async def _movie(request: web.Request) -> web.Response:
    tmdb_id = request.match_info["tmdb_id"]
    movie = request.app[_RECORDS].movies.get(int(tmdb_id)) if tmdb_id.isdigit() else None
    if movie is None:
        return _error(404, 34, "The resource you requested could not be found.")
    return web.json_response(movie)


async def _find(request: web.Request) -> web.Response:
    records = request.app[_RECORDS]
    tmdb_id = records.by_imdb_id.get(request.match_info["imdb_id"])
    results = [] if tmdb_id is None else [{"id": tmdb_id}]
    return web.json_response({"movie_results": results, "tv_results": [], "person_results": []})


def _error(status: int, code: int, message: str) -> web.Response:
    body = {"success": False, "status_code": code, "status_message": message}
    return web.json_response(body, status=status)
