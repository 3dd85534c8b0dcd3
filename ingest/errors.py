"""Everything that ``ingest`` raises on purpose.

::

    IngestError                 the root: catch this one
    ├── DatasetError            a file of ratings is missing, malformed or fails its checksum
    ├── DownloadError           a release could not be downloaded
    └── TmdbError               a TMDb request failed
        ├── TmdbAuthError       401 or 403: the whole crawl stops
        ├── TmdbDownError       TMDb has stopped answering: the crawl ends early
        └── TmdbResponseError   one record could not be fetched

Messages say what was found, what was expected and what to do; none holds a credential.
"""

from __future__ import annotations

from foundation.errors import MovieRatingsError


class IngestError(MovieRatingsError):
    """Root of every error that ``ingest`` raises on purpose."""


class DatasetError(IngestError):
    """A file of ratings is missing, malformed or fails its checksum."""


class DownloadError(IngestError):
    """A release could not be downloaded."""


class TmdbError(IngestError):
    """A TMDb request failed."""


class TmdbAuthError(TmdbError):
    """TMDb refused the credentials (401 or 403); no further request can succeed."""


class TmdbDownError(TmdbError):
    """TMDb has not answered successfully for a long time, or asks for a long pause."""


class TmdbResponseError(TmdbError):
    """One record could not be fetched within the permitted retries."""
