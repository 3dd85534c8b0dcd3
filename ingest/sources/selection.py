"""Which data source a configuration selects."""

from __future__ import annotations

import tempfile
from pathlib import Path

from foundation.storage import Storage
from ingest.config import DataConfig
from ingest.errors import DownloadError
from ingest.registry import AUTO, DEFAULT_RELEASE, FOLDER, SYNTHETIC, TABLE
from ingest.sources import locate
from ingest.sources.base import Source, source_class
from ingest.sources.download import is_kept


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
    if not config.path:
        return source_class(DEFAULT_RELEASE)
    return source_class(TABLE if _is_a_table(config) else FOLDER)


def needs_network(config: DataConfig, raw: Storage) -> bool:
    """Whether the data that ``config`` selects have to be downloaded."""
    is_release = not config.path and selected_class(config) is source_class(DEFAULT_RELEASE)
    return is_release and not is_kept(name_of(config), _downloads(raw))


def _is_a_table(config: DataConfig) -> bool:
    """Whether ``data.path`` is a table, and not in one of MovieLens' layouts."""
    path = Path(config.path).expanduser()
    if config.describes_a_table or (path.is_file() and path.suffix.lower() != ".zip"):
        return True
    if not path.is_dir() or locate.holds_ratings(path):
        return False
    from ingest.sources.table.source import has_table  # imports pandas, which takes long

    return has_table(path)


def _downloads(raw: Storage) -> Path:
    """Where archives are kept: beside the raw folders if these are local."""
    return Path(raw.path if raw.is_local else tempfile.gettempdir()) / "downloads"
