"""Downloads over real HTTP, and archives that cannot be trusted."""

from __future__ import annotations

import contextlib
import hashlib
import io
import stat
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from foundation.errors import ConfigError
from ingest.errors import DatasetError, DownloadError
from ingest.releases import RELEASES
from ingest.sources import download
from ingest.sources.archive import extract
from ingest.sources.locate import FILES


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, text in files.items():
            opened.writestr(f"ml-latest-small/{name.replace('_', '.')}", text)
    return buffer.getvalue()


ARCHIVE = archive(ratings_csv="a" * 100_000)
MD5 = hashlib.md5(ARCHIVE).hexdigest()


class Mirror:
    """A server of one archive, which records the requested ranges."""

    def __init__(self) -> None:
        self.body = ARCHIVE
        self.md5: str | None = f"MD5 (ml-latest-small.zip) = {MD5}\n"
        self.ranges: list[str | None] = []
        self.knows_ranges = True
        self.cut_after: int | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith(".md5"):
            if self.md5 is None:
                return web.Response(status=404)
            return web.Response(text=self.md5)
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        start = 0
        if wanted and self.knows_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.body):
                return web.Response(status=416)
        body = self.body[start:]
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: self.cut_after])
        if self.cut_after is not None:
            assert request.transport is not None
            request.transport.close()
        return response


@pytest.fixture
def mirror(serve_in_thread: Any) -> tuple[Mirror, str]:
    server = Mirror()
    return server, serve_in_thread(server.handle)


def fetch(url: str, folder: Path) -> Path:
    return download.download("ml-latest-small", url, folder)


@pytest.mark.parametrize(
    "text", [f"MD5 (x.zip) = {MD5}\n", f"{MD5}  x.zip\n", MD5.upper()], ids=["bsd", "gnu", "bare"]
)
def test_a_download_is_checked_and_kept(mirror: Any, tmp_path: Path, text: str) -> None:
    server, url = mirror
    server.md5 = text
    assert fetch(url, tmp_path).read_bytes() == ARCHIVE
    assert [p.name for p in tmp_path.iterdir()] == ["ml-latest-small.zip"]
    fetch(url, tmp_path)
    assert server.ranges == [None]


def test_a_newer_release_comes_once_the_older_is_deleted(mirror: Any, tmp_path: Path) -> None:
    server, url = mirror
    fetch(url, tmp_path)
    server.body = archive(ratings_csv="new")
    server.md5 = hashlib.md5(server.body).hexdigest()
    assert fetch(url, tmp_path).read_bytes() == ARCHIVE
    (tmp_path / "ml-latest-small.zip").unlink()
    assert fetch(url, tmp_path).read_bytes() == server.body


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_download_is_resumed_never_used(
    mirror: Any, tmp_path: Path, knows_ranges: bool
) -> None:
    server, url = mirror
    server.cut_after, server.knows_ranges = 60, knows_ranges
    with pytest.raises(DownloadError, match=r"60 of 236 bytes|broke"):
        fetch(url, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["ml-latest-small.zip.partial"]
    server.cut_after = None
    assert fetch(url, tmp_path).read_bytes() == ARCHIVE
    assert server.ranges == [None, "bytes=60-"]


@pytest.mark.parametrize("left", [b"of another release", b"x" * 10_000])
def test_a_partial_download_of_something_else_is_restarted(
    mirror: Any, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "ml-latest-small.zip.partial").write_bytes(left)
    assert fetch(mirror[1], tmp_path).read_bytes() == ARCHIVE


def test_a_wrong_checksum_is_refused(mirror: Any, tmp_path: Path) -> None:
    server, url = mirror
    server.md5 = "0" * 32
    with pytest.raises(DownloadError, match=f"has the MD5 {MD5}, but the MD5 0{{32}} was"):
        fetch(url, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("md5", [None, "no checksum here"])
def test_without_a_checksum_nothing_is_downloaded(
    mirror: Any, tmp_path: Path, md5: str | None
) -> None:
    server, url = mirror
    server.md5 = md5
    with pytest.raises(DownloadError, match="md5"):
        fetch(url, tmp_path)
    assert server.ranges == []


def test_releases_that_never_change_are_checked_against_a_fixed_checksum(
    mirror: Any, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match=f"but the SHA-256 {RELEASES['ml-25m'].sha256}"):
        download.download("ml-25m", mirror[1], tmp_path)


def test_a_release_that_never_changes_is_used_again_without_network(
    mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(RELEASES["ml-1m"], sha256=hashlib.sha256(ARCHIVE).hexdigest())
    monkeypatch.setitem(RELEASES, "ml-1m", known)
    download.download("ml-1m", mirror[1], tmp_path)
    again = download.download("ml-1m", "http://127.0.0.1:1", tmp_path)
    assert again.read_bytes() == ARCHIVE


@pytest.mark.parametrize("announces_its_length", [True, False])
@pytest.mark.parametrize("already", [0, 300_000])
def test_a_download_has_at_most_the_size_of_its_release(
    serve_in_thread: Any, tmp_path: Path, announces_its_length: bool, already: int
) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
        if announces_its_length:
            response.content_length = 10**12
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 100 * 10**6:
                await response.write(b"x" * 2**20)
                sent += 2**20
        return response

    url = serve_in_thread(endless)
    if already:
        (tmp_path / "ml-100k.zip.partial").write_bytes(b"x" * already)
    with pytest.raises(DownloadError, match="has more than 5 MB, which no archive of this release"):
        download.download("ml-100k", url, tmp_path)
    assert sent < 50 * 10**6
    assert not list(tmp_path.iterdir())


def test_no_server_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cannot download .*--set data.path="):
        fetch("http://127.0.0.1:1", tmp_path)


def test_without_network_an_earlier_download_is_used(mirror: Any, tmp_path: Path) -> None:
    fetch(mirror[1], tmp_path)
    assert fetch("http://127.0.0.1:1", tmp_path).read_bytes() == ARCHIVE


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an http or https URL"):
        fetch("file:///etc", tmp_path)


def write_zip(path: Path, member: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("ml/good.csv", "good")
        opened.writestr(member, "evil")
    return path


@pytest.mark.parametrize(
    "name", ["../evil", "ml/../../evil", "/evil", "C:\\evil", "ml\\..\\..\\evil", "\\\\host\\evil"]
)
def test_paths_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(DatasetError, match="outside the folder"):
        extract(write_zip(tmp_path / "a.zip", zipfile.ZipInfo(name)), target, FILES)
    assert not list(target.iterdir())


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("ml/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DatasetError, match="outside the folder"):
        extract(write_zip(tmp_path / "a.zip", link), tmp_path / "target", FILES)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(ARCHIVE[:-30])
    with pytest.raises(DatasetError, match="not a complete zip archive"):
        extract(path, tmp_path / "target", FILES)
    content = bytearray(ARCHIVE)
    content[70] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="not a complete zip archive"):
        extract(path, tmp_path / "target", FILES)


def test_only_what_is_read_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("own/ratings.csv", "x")
        opened.writestr("own/genome-scores.csv", b"0" * 10**7)
    extract(path, tmp_path / "target", FILES)
    found = [p.name for p in (tmp_path / "target").rglob("*") if p.is_file()]
    assert found == ["ratings.csv"]


def test_a_member_that_fills_the_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("own/ratings.csv", b"0" * 10**7)
    with pytest.raises(DatasetError, match=r"grows from [\d,]+ to 10,000,000 bytes"):
        extract(path, tmp_path / "target", FILES)
    assert not (tmp_path / "target").exists()


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("own/ratings.csv", "userId,movieId,rating,timestamp")
    # The flag of encryption, in the header of the member and in the directory of the archive.
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="is encrypted"):
        extract(path, tmp_path / "target", FILES)
