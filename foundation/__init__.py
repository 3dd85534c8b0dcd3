"""What ``ingest``, ``ncf`` and ``ray_jobs`` share: storage, configuration files, the command line,
the console, errors, the Parquet contract, registries, hashing and locks. It imports none of them,
and neither Ray nor PyTorch."""

__all__ = [
    "checksums",
    "cli",
    "config",
    "console",
    "errors",
    "hashing",
    "lock",
    "registry",
    "schemas",
    "storage",
    "times",
]
