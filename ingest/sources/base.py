"""What a data source is: the base class of all, and the four tables that it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from foundation.storage import Storage
from ingest.config import DataConfig
from ingest.progress import Say


@dataclass(frozen=True)
class Tables:
    """The four tables of a data set, by the schemas of ``foundation.schemas``."""

    ratings: pa.Table
    movies: pa.Table
    links: pa.Table
    tags: pa.Table
    notices: tuple[str, ...] = ()
    """What the user should know about the data."""
    noise_floor_rmse: float | None = None
    """RMSE in stars that no model can beat; known of synthetic data only."""


@dataclass(frozen=True)
class Written:
    """What a source reports about the tables that it wrote."""

    noise_floor_rmse: float | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source(ABC):
    """A data set of ratings, ready to be read.

    A subclass implements ``open``, ``name_for``, ``version`` and ``read``, sets the class
    variables, and is listed in ``ingest.sources.registry``. A source whose ratings may not fit into
    memory overrides ``write`` as well.
    """

    name: str
    """Name of the raw folder."""

    names: ClassVar[tuple[str, ...]]
    """Values of ``data.source`` that select this class."""
    attribution: ClassVar[tuple[str, ...]] = ()
    """Texts that must be shown wherever the data, or models trained on them, are used."""
    licence: ClassVar[str]
    """The terms of the data, in one sentence or two for the report."""
    is_synthetic: ClassVar[bool] = False
    """Whether the ratings are generated."""

    @classmethod
    @abstractmethod
    def open(cls, config: DataConfig, downloads: Path, say: Say) -> Source:
        """The source that ``config`` selects; ``downloads`` is a folder for downloaded archives.

        Raises:
            ConfigError: if a setting is missing.
            DatasetError: if ``data.path`` does not exist or does not hold the expected files.
            DownloadError: if the data cannot be downloaded.
        """

    @classmethod
    @abstractmethod
    def name_for(cls, config: DataConfig) -> str:
        """Name of the raw folder for ``config``, without use of the network.

        Raises:
            DatasetError: if ``data.path`` does not exist or does not hold the expected files.
        """

    @property
    @abstractmethod
    def version(self) -> dict[str, Any]:
        """A JSON object that stays the same if and only if ``read`` gives the same tables."""

    @abstractmethod
    def read(self) -> Tables:
        """Read and validate the four tables.

        Raises:
            DatasetError: if a file is missing, malformed or invalid.
        """

    def write(self, target: Storage) -> Written:
        """Write ratings, movies, links and tags into ``target``, as Parquet.

        Raises:
            DatasetError: as ``read``.
        """
        tables = self.read()
        (target / "ratings.parquet").write_table(tables.ratings)
        (target / "movies.parquet").write_table(tables.movies)
        (target / "links.parquet").write_table(tables.links)
        (target / "tags.parquet").write_table(tables.tags)
        return Written(tables.noise_floor_rmse, tables.notices)


def file_version(path: Path) -> dict[str, Any]:
    """Name, size in bytes and time of the last change of a file, for ``Source.version``."""
    stat = path.stat()
    return {"name": path.name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
