"""The trials of a search in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from ray.tune.experiment import Trial

from ray_jobs.config import JobConfig
from ray_jobs.results.trackers import mlflow_callbacks


def runs_of(uri: str, name: str) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.mark.parametrize("starts", [True, False])
def test_a_trial_is_one_run_also_if_it_fails_before_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlflow").as_uri()
    config = JobConfig.model_validate({"storage": str(tmp_path), "tune": {"mlflow_uri": uri}})
    (callback,) = mlflow_callbacks(config, "a-search")
    trial = Trial("model", config={"model.dropout": 0.25}, stub=True)

    callback.setup()
    if starts:
        callback.on_trial_start(1, [trial], trial)
    callback.on_trial_error(2, [trial], trial)

    (run,) = runs_of(uri, config.name)
    assert run.info.status == "FAILED"
    assert run.data.params == {"model.dropout": "0.25"}
    assert run.data.tags["search"] == "a-search"
