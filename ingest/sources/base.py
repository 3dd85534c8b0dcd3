"""The base class of data sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from foundation.registry import implementation
from foundation.schemas import MOVIE_NAMES, USER_NAMES
from foundation.storage import Storage
from ingest.config import DataConfig
from ingest.registry import SOURCES
from ingest.releases import Size
from ingest.sources.tables import Tables, check, names_table

BYTES_PER_RATING: Final = 24
"""What a line of MovieLens' ratings.csv takes; other formats are close."""


@dataclass(frozen=True)
class Written:
    """What a source reports about the tables that it wrote."""

    noise_floor_rmse: float | None = None
    """See ``Tables``."""
    notices: tuple[str, ...] = ()
    """See ``Tables``."""


@dataclass(frozen=True)
class TmdbRecords:
    """TMDb-shaped records that a source brings along."""

    movies: Mapping[int, Mapping[str, Any]]
    """Answers to ``/movie/{id}``, by TMDb id."""
    by_imdb_id: Mapping[str, int]
    """TMDb ids, by IMDb id."""


@dataclass(frozen=True)
class Source(ABC):
    """A data set of ratings, ready to be read.

    A subclass is listed in ``ingest.registry.SOURCES``. It sets ``licence``, and ``citation`` if
    there is one, and implements ``open``, ``version`` and ``read``. A source whose ratings may not
    fit into memory overrides ``write`` as well.
    """

    name: str
    """Name of the raw folder."""

    licence: ClassVar[str]
    """The terms of the data, in one sentence or two for the report."""
    citation: ClassVar[str | None] = None
    """The publication to cite; None if there is none."""
    is_synthetic: ClassVar[bool] = False
    """Whether the ratings are generated."""
    has_tmdb_records: ClassVar[bool] = False
    """Whether ``tmdb_records`` replaces TMDb, so that no credential is needed."""

    @classmethod
    @abstractmethod
    def open(cls, config: DataConfig, downloads: Path) -> Source:
        """The source that ``config`` selects; ``downloads`` is a folder for downloaded archives.

        Raises:
            DatasetError: if ``data.path`` does not exist or does not hold the expected files.
            DownloadError: if the data cannot be downloaded.
        """

    @classmethod
    def name_for(cls, config: DataConfig) -> str:
        """Name of the raw folder for ``config``, without use of the network.

        Raises:
            DatasetError: if ``data.path`` does not exist or does not hold the expected files.
        """
        return config.source

    @classmethod
    def expected_ratings(cls, config: DataConfig) -> int:
        """About how many ratings there are, without reading them.

        Raises:
            DatasetError: if ``data.path`` does not exist or does not hold the expected files.
        """
        return size_of(Path(config.path).expanduser()) // BYTES_PER_RATING

    @property
    def attribution(self) -> tuple[str, ...]:
        """Texts that must be shown wherever the data, or models trained on them, are used."""
        return (self.citation,) if self.citation else ()

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
        check(tables, self.name)
        (target / "ratings.parquet").write_table(tables.ratings)
        (target / "movies.parquet").write_table(tables.movies)
        (target / "links.parquet").write_table(tables.links)
        (target / "tags.parquet").write_table(tables.tags)
        if tables.user_names is not None:
            (target / USER_NAMES).write_table(names_table(tables.user_names))
        if tables.movie_names is not None:
            (target / MOVIE_NAMES).write_table(names_table(tables.movie_names))
        return Written(tables.noise_floor_rmse, tables.notices)

    def identified(self, size: Size) -> Source:
        """The source that the tables turn out to be, by their row counts.

        Licence and attribution are taken from it.
        """
        return self

    def tmdb_records(self) -> TmdbRecords:
        """Records to use instead of TMDb's.

        Raises:
            NotImplementedError: if ``has_tmdb_records`` is false.
        """
        raise NotImplementedError(f"{type(self).__name__} has no TMDb records")


def source_class(name: str) -> type[Source]:
    """The class of a source, by its name in ``ingest.registry.SOURCES``; imports its module."""
    found: type[Source] = implementation(SOURCES[name].implementation)
    return found


def file_version(path: Path) -> dict[str, Any]:
    """Name, size in bytes and time of the last change of a file, for ``Source.version``."""
    stat = path.stat()
    return {"name": path.name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 if there is neither."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
