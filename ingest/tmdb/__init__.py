"""Movie records from TMDb: an async client with a rate limit and retries, a resumable crawl, and
the Parquet parts that it writes. May import ``ingest.config``, ``ingest.errors``,
``ingest.progress`` and ``foundation``; knows nothing of the sources of ratings."""

__all__ = [
    "aio",
    "client",
    "crawl",
    "credentials",
    "progress",
    "rate_limit",
    "records",
    "shards",
]
