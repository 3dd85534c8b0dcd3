"""Download a MovieLens release, resume an interrupted download, and verify its checksum.

An unfinished download is ``<release>.zip.partial``; it is renamed once its checksum has been
verified: the SHA-256 held in `ingest.releases`, or, for a release that is replaced from time to
time, the MD5 published beside it.
Without a network the download fails within seconds.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple

from foundation.errors import ConfigError
from ingest.errors import DownloadError
from ingest.progress import LOG_INTERVAL_S
from ingest.releases import RELEASES

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
_CHUNK: Final = 1 << 20
_NETWORK_ERRORS: Final = (OSError, http.client.HTTPException)  # URLError is an OSError


class Checksum(NamedTuple):
    """What an archive is compared with."""

    algorithm: Literal["md5", "sha256"]
    digest: str
    """In lower-case hexadecimal digits."""

    def __str__(self) -> str:
        return f"the {'MD5' if self.algorithm == 'md5' else 'SHA-256'} {self.digest}"

    def of(self, path: Path) -> Checksum:
        """That of a file, by the same algorithm."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, self.algorithm).hexdigest()
        return Checksum(self.algorithm, digest)


def download(release: str, base_url: str, folder: Path) -> Path:
    """The archive of ``release``, from ``folder`` if it is there already, else downloaded.

    An archive that is there is not looked for again: of a release that is replaced from time to
    time, a newer one is downloaded after the file was deleted.

    Raises:
        DownloadError: if it cannot be downloaded, is too large, or has another checksum.
        ConfigError: if the URL is not an http or https URL.
    """
    archive = folder / f"{release}.zip"
    url = archive_url(release, base_url)
    _check_url(url)
    if is_kept(release, folder):
        return archive
    check_reachable(url)
    expected = _held(release) or Checksum("md5", _published_md5(url))
    logger.info("downloading %s", url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = archive.with_name(f"{archive.name}.partial")
        _fetch_verified(url, partial, expected, RELEASES[release].max_megabytes * 10**6)
        partial.replace(archive)
    except _NETWORK_ERRORS as error:
        raise _failed(url, error) from error
    return archive


def archive_url(release: str, base_url: str) -> str:
    """Where the archive of a release is."""
    return f"{base_url.rstrip('/')}/{release}.zip"


def is_kept(release: str, folder: Path) -> bool:
    """Whether ``download`` does without the network."""
    archive, held = folder / f"{release}.zip", _held(release)
    # An archive has this name only because its checksum was verified; those of releases that never
    # change are compared again, as older versions of this program did not.
    return archive.is_file() and (held is None or held.of(archive) == held)


def _held(release: str) -> Checksum | None:
    held = RELEASES[release].sha256
    return Checksum("sha256", held) if held else None


def _fetch_verified(url: str, partial: Path, expected: Checksum, max_bytes: int) -> None:
    resumed = _fetch(url, partial, max_bytes)
    if resumed and expected.of(partial) != expected:
        # The release may have changed since the download began.
        partial.unlink()
        _fetch(url, partial, max_bytes)
    found = expected.of(partial)
    if found != expected:
        partial.unlink()
        raise DownloadError(
            f"{url} has {found}, but {expected} was expected; the download was deleted. "
            f"{_advice(partial.name.removesuffix('.zip.partial'))}"
        )


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


def check_reachable(url: str) -> None:
    """Fail within seconds where there is no network; resolving the name could take much longer.

    Raises:
        DownloadError: if no connection can be made.
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


def _fetch(url: str, partial: Path, max_bytes: int) -> bool:
    """Download into ``partial``, continuing at its end; whether it existed before.

    Raises:
        DownloadError: if there are more bytes than ``max_bytes``; they are deleted.
    """
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=READ_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        return True  # it is complete, or another file: the checksum decides
    with answer:
        # A server without support for ranges sends everything, with status 200.
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        room = max_bytes - (start if resumed else 0)
        with partial.open("ab" if resumed else "wb") as stream:
            fits = (answer.length or 0) <= room and _copy(answer, stream, room)
    if not fits:
        partial.unlink()
        raise DownloadError(
            f"{url} has more than {max_bytes / 10**6:g} MB, which no archive of this release has; "
            f"the download was deleted. {_advice(partial.name.removesuffix('.zip.partial'))}"
        )
    return start > 0


def _copy(answer: http.client.HTTPResponse, stream: BinaryIO, room: int) -> bool:
    """Copy the body, unless it has more than ``room`` bytes; whether it was copied.

    Raises:
        OSError: if the body is shorter than announced.
    """
    length = answer.length
    copied, logged_at = 0, time.monotonic()
    while chunk := answer.read(_CHUNK):
        copied += len(chunk)
        if copied > room:
            return False
        stream.write(chunk)
        if time.monotonic() - logged_at >= LOG_INTERVAL_S:
            logged_at = time.monotonic()
            total = f" of {length >> 20}" if length else ""
            logger.info("  %d MiB%s", copied >> 20, total)
    if length is not None and copied < length:
        raise OSError(f"the connection broke after {copied:,} of {length:,} bytes")
    return True
