"""The root of every error that the project raises on purpose, and the errors all packages share.

::

    MovieRatingsError             the root: catch this one
    ├── ConfigError               a setting, flag or configuration file is wrong (exit code 2)
    ├── StorageError              an output folder or object store cannot be read or written
    ├── SchemaError               a file was written with another version of the schema
    ├── LockedError               another process is writing the same folder
    ├── ingest.errors.IngestError
    ├── ncf.errors.NcfError
    └── ray_jobs.errors.JobError

Messages say what was found, what was expected and what to do; none holds a credential.
"""

from __future__ import annotations

import re
from typing import Final


class MovieRatingsError(Exception):
    """Root of every error that the project raises on purpose."""


class ConfigError(MovieRatingsError):
    """A setting, flag or configuration file is wrong; the command ends with exit code 2."""


class StorageError(MovieRatingsError):
    """An output folder or object store cannot be read or written."""


class SchemaError(MovieRatingsError, ValueError):
    """A file was written with another version of the schema."""


class LockedError(MovieRatingsError):
    """Another process is writing the same folder."""


_USER_AND_PASSWORD: Final = re.compile(r"//[^/@\s]*@")


def without_secrets(text: str) -> str:
    """``text`` with the user name and password of every address replaced by ``***``."""
    return _USER_AND_PASSWORD.sub("//***@", text)


_MAX_QUOTED: Final = 200


def shortened(text: str, longest: int = _MAX_QUOTED) -> str:
    """At most so many characters of a text that a message quotes."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
