"""Files of other versions, and damaged ones, are told with what to do."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import StorageError
from foundation.storage import Storage
from ray_jobs.config import JobConfig
from ray_jobs.redo import Redo
from ray_jobs.results.comparison import ModelResult
from ray_jobs.results.metrics import RunMetrics
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage
from ray_jobs.results.stored_results import StoredResults
from ray_jobs.search.trials import TrialRecords
from ray_jobs.training.telemetry import SEARCH_METRICS
from tests.ray_jobs.made import METRICS


def changed(file: Path, **values: Any) -> None:
    """Set keys of a JSON file; those with None are removed."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"speed": 3}, "the key 'speed' is unknown"),
        ({"parameters": None}, "parameters: Field required"),
        ({"number": "one"}, "number: Input should be a valid integer"),
        ({"epochs": 3}, "epochs: Input should be a valid tuple"),
    ],
)
def test_a_trial_record_of_another_version(
    values: dict[str, Any], told: str, tmp_path: Path
) -> None:
    TrialRecords(Storage.at(tmp_path)).start(1, "a", {"x": 1})
    changed(tmp_path / "00001.json", **values)
    with pytest.raises(StorageError, match="or start the search again with --force") as caught:
        TrialRecords(Storage.at(tmp_path))
    assert f"00001.json is damaged, or was written by another version: {told}" in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "7", '{"key": 3}', "{}", "{", ""])
def test_a_damaged_record_of_a_stage(content: str, tmp_path: Path) -> None:
    workspace = Workspace(JobConfig(storage=str(tmp_path)))
    record = Path(workspace.paths.stage("tune").path)
    record.parent.mkdir(parents=True)
    record.write_text(content)
    with pytest.raises(StorageError, match=f"{record.name}.*Delete"):
        workspace.update(Stage("tune", (), (), lambda _: None))
    with pytest.raises(StorageError, match=f"{record.name}.*Delete"):
        workspace.seconds("tune")


def test_the_metrics_of_another_version(tmp_path: Path) -> None:
    file = Storage.at(tmp_path) / "metrics.json"
    file.write_json(METRICS)
    assert RunMetrics.read(file).dataset == "ml-latest-small"
    changed(tmp_path / "metrics.json", speed=3)
    with pytest.raises(StorageError, match=r"'speed' is unknown.*train the model again"):
        RunMetrics.read(file)
    changed(tmp_path / "metrics.json", speed=None, test=None)
    with pytest.raises(StorageError, match=r"test: Field required.*train the model again"):
        RunMetrics.read(file)


@pytest.mark.parametrize("content", ["[]", '{"key": "k"}', '{"key": "k", "result": {"name": 3}}'])
def test_a_result_of_another_version_counts_as_absent(content: str, tmp_path: Path) -> None:
    (tmp_path / "mean.json").write_text(content)
    stored = StoredResults(ModelResult, Storage.at(tmp_path), Storage.at(tmp_path))
    assert stored.find("mean", "k") is None


def test_a_trial_record_comes_back_with_its_types_and_undefined_metrics(tmp_path: Path) -> None:
    metric = SEARCH_METRICS["r2"]
    records = TrialRecords(Storage.at(tmp_path), metric)
    for number, value in ((1, 0.25), (2, math.nan)):
        records.start(number, f"t{number}", {"x": number})
        records.end(f"t{number}", state="finished", epochs=({"epoch": number, metric.key: value},))
    again = TrialRecords(Storage.at(tmp_path), metric)
    assert str(again.ended()) == str(records.ended())  # NaN differs from itself
    assert type(again[1].epochs[0]["epoch"]) is int
    assert (again[1].cost, again[2].cost) == (-0.25, math.inf)


def test_with_force_damaged_records_are_replaced(tmp_path: Path) -> None:
    redo = Redo(all_stages=True)
    workspace = Workspace(JobConfig(storage=str(tmp_path)), redo)
    record = Path(workspace.paths.stage("ingest").path)
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    workspace.took("ingest", "key", 1.0)
    assert workspace.seconds("ingest") == 1.0
