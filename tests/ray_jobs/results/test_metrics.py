from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from foundation.storage import Storage
from ray_jobs.results.metrics import RunMetrics
from tests.ray_jobs.made import METRICS


def test_reading_and_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = Storage.at(str(tmp_path / "1.json")), Storage.at(str(tmp_path / "2.json"))
    first.write_json(METRICS)
    second.write_json(RunMetrics.read(first).to_json())
    assert second.read_bytes() == first.read_bytes()


def test_a_file_of_the_first_release_has_no_hardware() -> None:
    values = {key: value for key, value in METRICS.items() if key != "hardware"}
    assert RunMetrics.from_json(values).hardware == {}


def test_a_missing_metric_is_refused() -> None:
    values = METRICS | {"test": {"rmse": 0.79}}
    with pytest.raises(ValidationError, match="mae"):
        RunMetrics.from_json(values)
