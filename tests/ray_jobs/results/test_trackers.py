"""The trials of a search in MLflow, on its own server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.tune.experiment import Trial

from ray_jobs.config import JobConfig
from ray_jobs.results.trackers import mlflow_callbacks, reach_mlflow
from tests.ray_jobs.tracking_server import runs_of, tracking_server


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tracking_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.mark.system
@pytest.mark.parametrize("starts", [True, False])
def test_a_trial_is_one_run_also_if_it_fails_before_its_start(
    uri: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], starts: bool
) -> None:
    config = JobConfig.model_validate(
        {"name": f"starts-{starts}", "storage": str(tmp_path), "tune": {"mlflow_uri": uri}}
    )
    assert reach_mlflow(config) == f"{uri}, experiment {config.name} will be made"
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
    assert reach_mlflow(config) == f"{uri}, experiment {config.name} is there"
    # MLflow names each run that ends, with its address, unless that is prevented.
    assert capfd.readouterr() == ("", "")
