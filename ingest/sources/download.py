"""Downloading a MovieLens release: quick to give up, resumable, and used only if its MD5 is right.

An unfinished download is ``<release>.zip.partial``; it takes its final name after the check.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import BinaryIO, Final

from foundation.errors import ConfigError
from ingest.errors import DownloadError
from ingest.progress import PLAIN_INTERVAL_S, Say
from ingest.sources.releases import MD5

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
_CHUNK: Final = 1 << 20
_NETWORK_ERRORS: Final = (OSError, http.client.HTTPException)  # URLError is an OSError


def download(release: str, base_url: str, folder: Path, say: Say) -> Path:
    """The archive of ``release``, from ``folder`` if it is there already, else downloaded.

    Raises:
        DownloadError: if it cannot be had whole, or its MD5 is not the published one.
        ConfigError: if the URL is not an http or https URL.
    """
    archive = folder / f"{release}.zip"
    url = f"{base_url.rstrip('/')}/{archive.name}"
    _check_url(url)
    # ml-latest and ml-latest-small are replaced from time to time, the others never.
    if archive.is_file() and release in MD5 and _md5(archive) == MD5[release]:
        return archive
    try:
        _check_reachable(url)
        expected = MD5.get(release) or _published_md5(url)
    except DownloadError:
        if not archive.is_file():
            raise
        # It took this name only after its checksum was found right.
        say(f"no network: {archive} is used as it was downloaded before")
        return archive
    if archive.is_file() and _md5(archive) == expected:
        return archive
    say(f"downloading {url}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = archive.with_name(f"{archive.name}.partial")
        resumed = _fetch(url, partial, say)
        if _md5(partial) != expected and resumed:
            # The release may have changed since the download began.
            partial.unlink()
            _fetch(url, partial, say)
        found = _md5(partial)
        if found != expected:
            partial.unlink()
            raise DownloadError(
                f"{url} has the MD5 {found}, GroupLens publishes {expected}; the download was "
                f"deleted. {_advice(release)}"
            )
        partial.replace(archive)
    except _NETWORK_ERRORS as error:
        raise _failed(url, error) from error
    return archive


def _advice(release: str) -> str:
    return (
        f"Try again, or download {release}.zip by hand from "
        "https://grouplens.org/datasets/movielens/ and name it with --set data.path=<file>."
    )


def _failed(url: str, error: Exception) -> DownloadError:
    reason = getattr(error, "reason", None) or error
    release = url.rsplit("/", 1)[-1].removesuffix(".md5").removesuffix(".zip")
    return DownloadError(f"cannot download {url}: {reason}. {_advice(release)}")


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"data.download_url leads to {url!r}, which is not an http or https URL. The default "
            "is https://files.grouplens.org/datasets/movielens"
        )


def _check_reachable(url: str) -> None:
    """Fail within seconds where there is no network; a name server can take much longer to say so.

    Raises:
        DownloadError: if no connection comes about.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return  # the proxy resolves the name
    outcome: list[OSError | None] = []

    def connect() -> None:
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT_S)
    error = outcome[0] if outcome else TimeoutError(f"no connection in {CONNECT_TIMEOUT_S:g} s")
    if error is not None:
        raise _failed(url, error) from error


def _published_md5(url: str) -> str:
    """The MD5 that GroupLens publishes beside an archive.

    Raises:
        DownloadError: if there is none.
    """
    url = f"{url}.md5"
    try:
        with urllib.request.urlopen(url, timeout=READ_TIMEOUT_S) as answer:
            text = answer.read(1000).decode("ascii", errors="replace")
    except _NETWORK_ERRORS as error:
        raise _failed(url, error) from error
    match = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if match is None:
        raise DownloadError(f"{url} holds no MD5 but {text[:60]!r}")
    return match.group().lower()


def _fetch(url: str, partial: Path, say: Say) -> bool:
    """Download into ``partial``, going on where it ends; whether something was there before."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=READ_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        return True  # all of it is there, or it is another file: the checksum tells
    with answer:
        # A server that knows no ranges sends everything, with status 200.
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        with partial.open("ab" if resumed else "wb") as stream:
            _copy(answer, stream, say)
    return start > 0


def _copy(answer: http.client.HTTPResponse, stream: BinaryIO, say: Say) -> None:
    """Copy the body; a body that ends too early is an error."""
    length = answer.length
    copied, said = 0, time.monotonic()
    while chunk := answer.read(_CHUNK):
        stream.write(chunk)
        copied += len(chunk)
        if time.monotonic() - said >= PLAIN_INTERVAL_S:
            said = time.monotonic()
            say(f"  {copied >> 20} MiB" + (f" of {length >> 20}" if length else ""))
    if length is not None and copied < length:
        raise OSError(f"the connection broke after {copied:,} of {length:,} bytes")


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
