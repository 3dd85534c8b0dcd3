"""Where the ratings come from: which source a configuration means, and its tables on disk.

A source is identified by a *stamp*: a small dictionary that is the same if and only if reading it
again would give the same tables. A raw folder whose stamp is current is left as it is.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from foundation.schemas import RATINGS
from foundation.storage import Storage
from ingest.config import DataConfig, SyntheticConfig
from ingest.errors import DatasetError, DownloadError
from ingest.progress import Say
from ingest.sources import download, movielens, releases
from ingest.sources.archive import extract
from ingest.sources.synthetic import GENERATOR_VERSION, SyntheticData, SyntheticTmdb

READER_VERSION: Final = 1
"""Raised whenever the same files give other tables."""

SYNTHETIC: Final = "synthetic"
DEFAULT_RELEASE: Final = "ml-latest-small"

SYNTHETIC_NOTICE: Final = (
    "THIS IS SYNTHETIC DATA, not MovieLens: every user, movie and rating is made up, and figures "
    "measured on it say nothing about real recommendations."
)


@dataclass(frozen=True)
class Written:
    """What was written besides the files."""

    noise_floor_rmse: float | None = None
    notices: tuple[str, ...] = ()


class Source(Protocol):
    """Something that can write the four tables."""

    @property
    def name(self) -> str:
        """Name of the raw folder."""

    @property
    def stamp(self) -> dict[str, Any]:
        """What the tables follow from."""

    def write(self, target: Storage) -> Written:
        """Write ratings, movies, links and tags into ``target``."""


@dataclass(frozen=True)
class SyntheticSource:
    """Generated data."""

    config: SyntheticConfig
    name: str = SYNTHETIC

    @property
    def stamp(self) -> dict[str, Any]:
        """The generator's version and configuration."""
        return {"synthetic": self.config.model_dump(), "generator_version": GENERATOR_VERSION}

    def write(self, target: Storage) -> Written:
        """Generate and write, batch by batch.

        Raises:
            ConfigError: if the configuration cannot be met.
        """
        data = SyntheticData.generate(self.config)
        tmdb = SyntheticTmdb.of(data)
        with (
            (target / "ratings.parquet").writing() as stream,
            pq.ParquetWriter(stream, RATINGS, compression="zstd") as writer,
        ):
            for batch in data.rating_batches():
                writer.write_batch(batch)
        (target / "movies.parquet").write_table(data.movies())
        (target / "links.parquet").write_table(data.links(tmdb.tmdb_ids, tmdb.imdb_ids))
        (target / "tags.parquet").write_table(data.tags())
        return Written(data.noise_floor.rmse, (SYNTHETIC_NOTICE,))


@dataclass(frozen=True)
class FileSource:
    """A folder or zip archive on disk."""

    name: str
    path: Path
    release: str | None

    @property
    def stamp(self) -> dict[str, Any]:
        """Size and time of change of each file that is read."""
        if self.path.is_file():
            return {"files": [_file_stamp(self.path)], "reader_version": READER_VERSION}
        folder, layout = releases.locate(self.path, self.release)
        names = [layout.ratings, layout.movies, "links.csv", "tags.csv", "tags.dat"]
        files = [_file_stamp(folder / name) for name in names if (folder / name).is_file()]
        return {"files": files, "reader_version": READER_VERSION}

    def write(self, target: Storage) -> Written:
        """Read, validate and write.

        Raises:
            DatasetError: if the files are missing, malformed or invalid; nothing is written then.
        """
        with _unpacked(self.path) as folder:
            tables = movielens.read(*releases.locate(folder, self.release))
        for name in ("ratings", "movies", "links", "tags"):
            table: pa.Table = getattr(tables, name)
            (target / f"{name}.parquet").write_table(table)
        return Written(notices=tables.notices)


def choose(config: DataConfig, raw: Storage, say: Say) -> tuple[Source, tuple[str, ...]]:
    """The source that ``config`` means, downloaded if need be, and what to tell the user.

    Raises:
        DatasetError: if ``data.path`` does not exist or holds no such data.
        DownloadError: if a release that was asked for by name cannot be downloaded.
    """
    if config.source == SYNTHETIC:
        return SyntheticSource(config.synthetic), ()
    release = config.source if config.source in releases.RELEASES else None
    if config.path:
        return _on_disk(Path(config.path).expanduser(), release), ()
    try:
        return _downloaded(release or DEFAULT_RELEASE, config, raw, say), ()
    except DownloadError as error:
        if release is not None:
            raise
        return SyntheticSource(config.synthetic), (
            f"{DEFAULT_RELEASE} is not available, so synthetic data takes its place. {error}",
        )


def name_of(config: DataConfig) -> str:
    """Name of the raw folder of the source that ``config`` asks for first, without the network.

    Raises:
        DatasetError: if ``data.path`` does not exist or holds no such data.
    """
    if config.source == SYNTHETIC:
        return SYNTHETIC
    release = config.source if config.source in releases.RELEASES else None
    if config.path:
        return _on_disk(Path(config.path).expanduser(), release).name
    return release or DEFAULT_RELEASE


def _on_disk(path: Path, release: str | None) -> FileSource:
    if not path.is_file():
        folder, _ = releases.locate(path, release)
        named = release or releases.release_of(folder) or folder.resolve().name
    else:
        named = release or releases.release_of(path.with_suffix("")) or path.stem
    name = re.sub(r"[^\w.-]+", "-", named).strip(".-") or "folder"
    return FileSource(f"{name}-folder" if name == SYNTHETIC else name, path, release)


def _downloaded(release: str, config: DataConfig, raw: Storage, say: Say) -> Source:
    """The release's archive; kept beside the raw folders if these are local."""
    folder = Path(raw.path if raw.is_local else tempfile.gettempdir()) / "downloads"
    archive = download.download(release, config.download_url, folder, say)
    return FileSource(release, archive, release)


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The folder itself, or a temporary one with the archive's content.

    Raises:
        DatasetError: if the archive is damaged or not to be trusted.
    """
    if path.is_dir():
        yield path
        return
    if path.suffix.lower() != ".zip":
        raise DatasetError(
            f"data.path = {str(path)!r} is neither a folder nor a .zip archive. Name the folder "
            "with the release's files."
        )
    with tempfile.TemporaryDirectory(prefix="movielens-") as folder:
        extract(path, Path(folder))
        yield Path(folder)


def _file_stamp(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"name": path.name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
