"""Metrics that are undefined, such as R² where all ratings are equal."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

from foundation.storage import Storage
from ray_jobs.results import undefined
from ray_jobs.results.comparison import ModelResult, shown
from ray_jobs.results.stored_results import StoredResults


def scores(r2: float) -> dict[str, object]:
    return {"rmse": 0.5, "mae": 0.4, "r2": r2, "decayed": {"rmse": 0.3, "mae": 0.2, "r2": r2}}


def test_an_undefined_metric_comes_back_from_a_file(tmp_path: Path) -> None:
    seeds = (scores(math.nan), scores(math.nan))
    result = ModelResult("mean", "", "baseline", seeds, (), curves=(({"r2": math.nan},),))
    stored = StoredResults(ModelResult, Storage.at(tmp_path), Storage.at(tmp_path))
    stored.store("key", result)
    assert "NaN" not in (tmp_path / "mean.json").read_text()
    found = stored.find("mean", "key")
    assert found is not None
    assert str(asdict(found)) == str(asdict(result))  # NaN differs from itself
    assert shown(*found.figure("r2", "stars")) == "undefined"
    assert shown(*found.figure("r2", "decayed")) == "undefined"
    assert shown(*found.figure("rmse", "stars")) == "0.5000 ± 0.0000"


def test_means_and_spreads() -> None:
    value, spread = undefined.mean_and_spread([1.0, 3.0])
    assert (value, spread) == (2.0, math.sqrt(2))
    assert undefined.mean_and_spread([1.0]) == (1.0, None)
    assert all(math.isnan(x) for x in undefined.mean_and_spread([1.0, math.nan]) if x is not None)
    assert undefined.mean_and_spread([math.nan])[1] is None
