"""A folder or zip archive of the user's own, in one of MovieLens' file layouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ingest import releases
from ingest.config import DataConfig
from ingest.registry import FOLDER, SOURCES
from ingest.releases import RELEASES, Size
from ingest.sources.base import BYTES_PER_RATING, Source
from ingest.sources.files import RatingFiles
from ingest.sources.movielens import MovieLensSource
from ingest.sources.tables import Tables


@dataclass(frozen=True)
class FolderSource(Source):
    """The user's own data: without citation, under the terms of their owner.

    Data with exactly the numbers of ratings, users and movies of a MovieLens release are that
    release, under whatever name, and get its citation and terms. The name of the folder alone gives
    neither.
    """

    files: RatingFiles

    licence: ClassVar[str] = (
        "The ratings were read from a folder of the user's own. Their licence is that of the "
        "data's owner."
    )

    @classmethod
    def open(cls, config: DataConfig, downloads: Path) -> FolderSource:
        """The data at ``data.path``.

        Raises:
            DatasetError: if ``data.path`` does not exist or holds no ratings.
        """
        return cls(cls.name_for(config), RatingFiles.at(config, None))

    @classmethod
    def name_for(cls, config: DataConfig) -> str:
        """Name of the folder or archive, or of the release that it is named after.

        Raises:
            DatasetError: if ``data.path`` does not exist or holds no ratings.
        """
        files = RatingFiles.at(config, None)
        reserved = files.release is None and files.name in SOURCES and files.name != FOLDER
        # Another source writes the raw folder of that name.
        return f"{files.name}-{FOLDER}" if reserved else files.name

    @classmethod
    def expected_ratings(cls, config: DataConfig) -> int:
        """The number of the release that the folder is named after, else from the file's size.

        Raises:
            DatasetError: if ``data.path`` does not exist or holds no ratings.
        """
        files = RatingFiles.at(config, None)
        if files.release is not None:
            return RELEASES[files.release].size.num_ratings
        return files.ratings_size() // BYTES_PER_RATING

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

    def identified(self, size: Size) -> Source:
        """The MovieLens release with exactly these row counts; else the user's own data."""
        is_release = releases.recognise(size) is not None
        return MovieLensSource(self.name, self.files) if is_release else self
