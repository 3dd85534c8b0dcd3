"""Every data source, and the one that a configuration selects.

To add a source, write its class in a module of its own, list it in ``SOURCES`` and add its name to
``ingest.config.SourceName``; docs/how-to.md has an example.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from foundation.storage import Storage
from ingest.config import DataConfig
from ingest.errors import DownloadError
from ingest.progress import Say
from ingest.sources.base import Source
from ingest.sources.folder import FolderSource
from ingest.sources.movielens import DEFAULT_RELEASE, MovieLensSource
from ingest.sources.netflix import NetflixPrizeSource
from ingest.sources.synthetic import SYNTHETIC, SyntheticSource

SOURCES: Final[tuple[type[Source], ...]] = (
    MovieLensSource,
    FolderSource,
    NetflixPrizeSource,
    SyntheticSource,
)

BY_NAME: Final = {name: kind for kind in SOURCES for name in kind.names}
"""The class for each value of ``data.source``, except ``auto``."""

__all__ = ["BY_NAME", "SOURCES", "SYNTHETIC", "choose", "name_of"]


def choose(config: DataConfig, raw: Storage, say: Say) -> tuple[Source, tuple[str, ...]]:
    """The source that ``config`` selects, downloaded if necessary, and notices for the user.

    Raises:
        ConfigError: if a setting of the source is missing.
        DatasetError: if ``data.path`` does not exist or does not hold the expected files.
        DownloadError: if a release that ``data.source`` names cannot be downloaded.
    """
    kind = _kind(config)
    try:
        return kind.open(config, _downloads(raw), say), ()
    except DownloadError as error:
        if config.source != "auto":
            raise
        return SyntheticSource.open(config, _downloads(raw), say), (
            f"{DEFAULT_RELEASE} is not available; synthetic data is used instead. {error}",
        )


def name_of(config: DataConfig) -> str:
    """Name of the raw folder of the source that ``config`` selects, without use of the network.

    Raises:
        DatasetError: if ``data.path`` does not exist or does not hold the expected files.
    """
    return _kind(config).name_for(config)


def _kind(config: DataConfig) -> type[Source]:
    if config.source != "auto":
        return BY_NAME[config.source]
    return FolderSource if config.path else MovieLensSource


def _downloads(raw: Storage) -> Path:
    """Where archives are kept: beside the raw folders if these are local."""
    return Path(raw.path if raw.is_local else tempfile.gettempdir()) / "downloads"
