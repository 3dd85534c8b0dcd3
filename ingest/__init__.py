"""From the files of a data source and TMDb's API to Parquet tables: sources of ratings, the TMDb
crawl, and the stage and command line that run them. May import ``foundation``, and neither Ray nor
PyTorch."""

__all__ = [
    "config",
    "dataset",
    "errors",
    "loopback",
    "manifest",
    "progress",
    "registry",
    "releases",
    "sources",
    "tmdb",
]
