"""Data sets of ratings: how each is found, downloaded and read into the four raw tables.

May import ``ingest.config``, ``ingest.errors``, ``ingest.progress`` and ``foundation``; does not
depend on TMDb.
"""

__all__ = [
    "archive",
    "base",
    "download",
    "files",
    "folder",
    "movielens",
    "netflix",
    "parsing",
    "reader",
    "registry",
    "releases",
    "synthetic",
]
