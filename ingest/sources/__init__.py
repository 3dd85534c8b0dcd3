"""Data sources: how the files of each are found, downloaded and read into the four raw tables. A
source is a subclass of ``base.Source`` and an entry in ``ingest.registry.SOURCES``. May import
``ingest.config``, ``ingest.errors``, ``ingest.progress``, ``ingest.registry``, ``ingest.releases``
and ``foundation``; knows nothing of TMDb's API."""

__all__ = [
    "archive",
    "base",
    "download",
    "encoding",
    "files",
    "folder",
    "genres",
    "locate",
    "movie_file",
    "movielens",
    "netflix",
    "optional_files",
    "parsing",
    "rating_file",
    "reader",
    "reading",
    "selection",
    "synthetic",
    "tables",
    "times",
    "years",
]
