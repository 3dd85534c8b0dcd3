"""Which data source a configuration selects."""

from __future__ import annotations

import tempfile
from pathlib import Path

from foundation.storage import Storage
from ingest.config import DataConfig
from ingest.errors import DownloadError
from ingest.registry import AUTO, DEFAULT_RELEASE, FOLDER, SYNTHETIC
from ingest.sources.base import Source, source_class


def open_source(config: DataConfig, raw: Storage) -> tuple[Source, tuple[str, ...]]:
    """The source that ``config`` selects, downloaded if necessary, and notices for the user.

    Raises:
        DatasetError: if ``data.path`` does not exist or does not hold the expected files.
        DownloadError: if a release that ``data.source`` names cannot be downloaded.
    """
    try:
        return selected_class(config).open(config, _downloads(raw)), ()
    except DownloadError as error:
        if config.source != AUTO:
            raise
        return source_class(SYNTHETIC).open(config, _downloads(raw)), (
            f"{DEFAULT_RELEASE} is not available; synthetic data is used instead. {error}",
        )


def name_of(config: DataConfig) -> str:
    """Name of the raw folder of the source that ``config`` selects, without use of the network.

    Raises:
        DatasetError: if ``data.path`` does not exist or does not hold the expected files.
    """
    return selected_class(config).name_for(config)


def selected_class(config: DataConfig) -> type[Source]:
    """The class of the source that ``config`` selects."""
    if config.source != AUTO:
        return source_class(config.source)
    return source_class(FOLDER if config.path else DEFAULT_RELEASE)


def _downloads(raw: Storage) -> Path:
    """Where archives are kept: beside the raw folders if these are local."""
    return Path(raw.path if raw.is_local else tempfile.gettempdir()) / "downloads"
