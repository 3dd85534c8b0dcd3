"""Ratings in one of MovieLens' file layouts, in a folder or a zip archive."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc

from ingest.config import DataConfig
from ingest.errors import DatasetError
from ingest.registry import FOLDER
from ingest.releases import Size, deviation, is_damaged
from ingest.sources import locate, reader
from ingest.sources.archive import extract
from ingest.sources.base import file_version
from ingest.sources.tables import Tables

READER_VERSION: Final = 2
"""Incremented whenever the same files give different tables."""


@dataclass(frozen=True)
class RatingFiles:
    """The files of one data set."""

    path: Path
    """A folder, or a zip archive of one."""
    requested: str | None
    """The release that the configuration names; None if it names none."""
    timestamp_unit: str = "auto"
    """As ``data.timestamp_unit``."""
    duplicates: str = "refuse"
    """As ``data.duplicates``."""
    may_deviate: bool = False
    """Whether data that are named after a release may be only a part of it."""

    @classmethod
    def at(cls, config: DataConfig, requested: str | None) -> RatingFiles:
        """The files at ``data.path``.

        Raises:
            DatasetError: if ``path`` does not exist, or is a folder without ratings.
        """
        files = cls(
            Path(config.path).expanduser(),
            requested,
            config.timestamp_unit,
            config.duplicates,
            may_deviate=config.source == FOLDER,
        )
        if not files.path.is_file():
            locate.locate(files.path, requested)
        return files

    @property
    def release(self) -> str | None:
        """The release that the configuration, or else the name of the folder or archive, names."""
        if self.path.is_file():
            return self.requested or locate.release_of(self.path.with_suffix(""))
        return self.requested or locate.release_of(self._folder)

    @property
    def name(self) -> str:
        """The release's name, or else that of the folder or archive; safe as a folder's name."""
        own = self.path.stem if self.path.is_file() else self._folder.resolve().name
        return re.sub(r"[^\w.-]+", "-", self.release or own).strip(".-") or "folder"

    @property
    def _folder(self) -> Path:
        folder, _ = locate.locate(self.path, self.requested)
        return folder

    @property
    def version(self) -> dict[str, Any]:
        """Size and time of the last change of each file that is read."""
        return {
            "files": self._file_versions(),
            "timestamp_unit": self.timestamp_unit,
            "duplicates": self.duplicates,
            "reader_version": READER_VERSION,
        }

    def _file_versions(self) -> list[dict[str, Any]]:
        if self.path.is_file():
            return [file_version(self.path)]
        folder, layout = locate.locate(self.path, self.requested)
        names = [layout.ratings, layout.movies, "links.csv", "tags.csv", "tags.dat"]
        return [file_version(folder / name) for name in names if (folder / name).is_file()]

    def ratings_size(self) -> int:
        """Bytes of the file of ratings, or of the archive."""
        if self.path.is_file():
            return self.path.stat().st_size
        folder, layout = locate.locate(self.path, self.requested)
        return (folder / layout.ratings).stat().st_size

    def read(self) -> Tables:
        """Read and validate the four tables.

        Raises:
            DatasetError: if the files are missing, malformed or invalid.
        """
        with _unpacked(self.path) as folder:
            found = locate.locate(folder, self.requested)
            tables = reader.read(*found, self.timestamp_unit, self.duplicates)
        return replace(tables, notices=(*tables.notices, *self._deviation(tables)))

    def _deviation(self, tables: Tables) -> tuple[str, ...]:
        """Compare with the numbers of the release that the data are named after, if any.

        Raises:
            DatasetError: if a part of the release is missing.
        """
        name = self.release
        if name is None:
            return ()
        users = pc.count_distinct(tables.ratings["user_id"]).as_py()
        size = Size(tables.ratings.num_rows, users, tables.movies.num_rows)
        found = deviation(name, size)
        if found is None:
            return ()
        if is_damaged(name, size) and not self.may_deviate:
            raise DatasetError(
                f"{self.path} has {found}. If it was cut, copy or download it again; if it is "
                "meant to be a part of the release, set data.source=folder."
            )
        return (f"{self.path.name} has {found}.",)


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The folder itself, or a temporary one with the archive's content.

    Raises:
        DatasetError: if the archive is damaged or unsafe.
    """
    if path.is_dir():
        yield path
        return
    if path.suffix.lower() != ".zip":
        raise DatasetError(
            f"data.path = {str(path)!r} is neither a folder nor a .zip archive. Name the folder "
            "with the files of the data set."
        )
    with tempfile.TemporaryDirectory(prefix="ratings-") as folder:
        extract(path, Path(folder), locate.FILES)
        yield Path(folder)
