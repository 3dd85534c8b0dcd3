"""A folder or zip archive of the user's own, in one of MovieLens' file layouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, get_args

from ingest.config import DataConfig, SourceName
from ingest.progress import Say
from ingest.sources.base import Source, Tables
from ingest.sources.files import RatingFiles
from ingest.sources.movielens import MovieLensSource

_RESERVED: Final = frozenset(get_args(SourceName)) - {"auto", "folder"}
"""Names of raw folders that other sources write."""


@dataclass(frozen=True)
class FolderSource(Source):
    """The user's own data: no citation, and the terms are those of their owner."""

    files: RatingFiles

    names: ClassVar[tuple[str, ...]] = ("folder",)
    licence: ClassVar[str] = (
        "The ratings were read from a folder of the user's own. Their licence is that of the "
        "data's owner."
    )

    @classmethod
    def open(cls, config: DataConfig, downloads: Path, say: Say) -> Source:
        """The data at ``data.path``.

        A folder or archive that bears the name of a MovieLens release (``ml-1m``, ``ml-1m.zip``)
        is taken for that release, with its citation and terms.

        Raises:
            DatasetError: if ``data.path`` does not exist or holds no ratings.
        """
        return _at(config.path)

    @classmethod
    def name_for(cls, config: DataConfig) -> str:
        """Name of the release, or else of the folder or archive.

        Raises:
            DatasetError: if ``data.path`` does not exist or holds no ratings.
        """
        return _at(config.path).name

    @property
    def version(self) -> dict[str, Any]:
        """Size and time of the last change of each file that is read."""
        return self.files.version

    def read(self) -> Tables:
        """Read and validate the files.

        Raises:
            DatasetError: if the files are missing, malformed or invalid.
        """
        return self.files.read()


def _at(path: str) -> Source:
    files = RatingFiles.at(path, None)
    if files.release is not None:
        return MovieLensSource(files.release, files)
    name = files.name
    return FolderSource(f"{name}-folder" if name in _RESERVED else name, files)
