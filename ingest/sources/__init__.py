"""Data sets of ratings: where they come from and how their files are read into the four raw tables.
May import ``ingest.config``, ``ingest.errors``, ``ingest.progress`` and ``foundation``; knows
nothing of TMDb."""

__all__ = [
    "archive",
    "download",
    "movielens",
    "parsing",
    "registry",
    "releases",
    "synthetic",
]
