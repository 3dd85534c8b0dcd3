"""Everything that ``ingest`` raises on purpose.

::

    IngestError                 the root: catch this one
    ├── ConfigError             a setting, flag or configuration file is wrong (exit code 2)
    ├── DatasetError            a MovieLens file is missing, malformed or fails its checksum
    ├── DownloadError           a release could not be downloaded
    ├── StorageError            an output folder or object store cannot be read or written
    ├── SchemaError             a file was written with another version of the schema
    ├── CrawlLockedError        another crawl is writing the same folder
    └── TmdbError               a TMDb request failed
        ├── TmdbAuthError       401 or 403: the whole crawl stops
        ├── TmdbDownError       TMDb has stopped answering: the crawl gives up for now
        └── TmdbResponseError   one record could not be had

Messages say what was found, what was expected and what to do; none holds a credential.
"""

from __future__ import annotations

import re
from typing import Final


class IngestError(Exception):
    """Root of every error that ``ingest`` raises on purpose."""


class ConfigError(IngestError):
    """A setting, flag or configuration file is wrong; the command ends with exit code 2."""


class DatasetError(IngestError):
    """A MovieLens file is missing, malformed or fails its checksum."""


class DownloadError(IngestError):
    """A release could not be downloaded."""


class StorageError(IngestError):
    """An output folder or object store cannot be read or written."""


class SchemaError(IngestError, ValueError):
    """A file was written with another version of the schema."""


class CrawlLockedError(IngestError):
    """Another crawl is writing the same folder."""


class TmdbError(IngestError):
    """A TMDb request failed."""


class TmdbAuthError(TmdbError):
    """TMDb refused the credentials (401 or 403); no further request can succeed."""


class TmdbDownError(TmdbError):
    """TMDb has not answered usefully for a long time, or asks to be left alone for long."""


class TmdbResponseError(TmdbError):
    """One record could not be had, after every permitted retry."""


_USER_AND_PASSWORD: Final = re.compile(r"//[^/@\s]*@")


def without_secrets(text: str) -> str:
    """``text`` with user and password of the addresses in it made unreadable."""
    return _USER_AND_PASSWORD.sub("//***@", text)
