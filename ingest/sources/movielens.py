"""MovieLens releases, from disk or downloaded from GroupLens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from ingest.config import DataConfig
from ingest.registry import DEFAULT_RELEASE
from ingest.releases import RELEASES
from ingest.sources import download
from ingest.sources.base import Source
from ingest.sources.files import RatingFiles
from ingest.sources.tables import Tables

MOVIELENS_CITATION: Final = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4. https://doi.org/10.1145/2827872"
)


@dataclass(frozen=True)
class MovieLensSource(Source):
    """One MovieLens release."""

    files: RatingFiles

    licence: ClassVar[str] = (
        "The terms of MovieLens' releases are in their README files: research use, with the "
        "citation below, and no redistribution or commercial use without GroupLens' permission."
    )
    citation: ClassVar[str | None] = MOVIELENS_CITATION

    @classmethod
    def open(cls, config: DataConfig, downloads: Path) -> MovieLensSource:
        """The release at ``data.path``, or downloaded if no path is set.

        Raises:
            DatasetError: if ``data.path`` does not exist or does not hold that release.
            DownloadError: if the release cannot be downloaded.
        """
        release = _release(config)
        if config.path:
            return cls(release, RatingFiles.at(config, release))
        archive = download.download(release, config.download_url, downloads)
        return cls(release, RatingFiles(archive, release, config.timestamp_unit, config.duplicates))

    @classmethod
    def name_for(cls, config: DataConfig) -> str:
        """The release's name.

        Raises:
            DatasetError: if ``data.path`` does not exist or does not hold that release.
        """
        release = _release(config)
        if config.path:
            RatingFiles.at(config, release)
        return release

    @classmethod
    def expected_ratings(cls, config: DataConfig) -> int:
        """The number in the release's README."""
        return RELEASES[_release(config)].size.num_ratings

    @property
    def version(self) -> dict[str, Any]:
        """Size and time of the last change of each file that is read."""
        return self.files.version

    def read(self) -> Tables:
        """Read and validate the release's files.

        Raises:
            DatasetError: if the files are missing, malformed or invalid.
        """
        return self.files.read()


def _release(config: DataConfig) -> str:
    """The release that ``config`` names; the default one for ``auto``."""
    return config.source if config.source in RELEASES else DEFAULT_RELEASE
