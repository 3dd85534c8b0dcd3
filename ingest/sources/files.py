"""Ratings in one of MovieLens' file layouts, in a folder or a zip archive."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ingest.errors import DatasetError
from ingest.sources import locate, reader
from ingest.sources.archive import extract
from ingest.sources.base import file_version
from ingest.sources.tables import Tables

READER_VERSION: Final = 1
"""Incremented whenever the same files give different tables."""


@dataclass(frozen=True)
class RatingFiles:
    """The files of one data set."""

    path: Path
    """A folder, or a zip archive of one."""
    requested: str | None
    """The release that the configuration names; None if it names none."""

    @classmethod
    def at(cls, path: str, requested: str | None) -> RatingFiles:
        """The files at ``path``.

        Raises:
            DatasetError: if ``path`` does not exist, or is a folder without ratings.
        """
        files = cls(Path(path).expanduser(), requested)
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
        if self.path.is_file():
            return {"files": [file_version(self.path)], "reader_version": READER_VERSION}
        folder, layout = locate.locate(self.path, self.requested)
        names = [layout.ratings, layout.movies, "links.csv", "tags.csv", "tags.dat"]
        files = [file_version(folder / name) for name in names if (folder / name).is_file()]
        return {"files": files, "reader_version": READER_VERSION}

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
            return reader.read(*locate.locate(folder, self.requested))


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
        extract(path, Path(folder))
        yield Path(folder)
