"""What a final model was made from and with, for the files of its metrics."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any, Final

import ray

from ingest.raw_data import RawData
from ray_jobs.cluster.hardware import hardware

PACKAGES: Final = ("ray", "torch", "optuna", "pyarrow", "pandas", "numpy", "aiohttp")


def provenance(raw: RawData) -> dict[str, Any]:
    """Versions of packages, resources and hardware of the cluster, and terms of the data."""
    return {
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "resources": {k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")},
        "hardware": hardware(),
        "raw": {
            "tmdb_coverage": raw.tmdb_coverage,
            "notices": raw.notices,
            "attribution": raw.attribution,
            "licence": raw.licence,
        },
    }
