"""A search in MLflow, if ``tune.mlflow_uri`` names a place: a run for each trial."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final

from ray.tune import Callback

from ray_jobs.config import JobConfig
from ray_jobs.errors import ClusterError

_ENVIRONMENT: Final = {
    # With MLflow's defaults a job waits for minutes before it reports an unreachable server.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # MLflow sends usage statistics by default.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Two lines for every run that ends.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment variables that MLflow gets unless the user has set them."""


def reach_mlflow(config: JobConfig) -> str:
    """Describe what is at ``tune.mlflow_uri``.

    Raises:
        ClusterError: if it cannot be reached, or MLflow is not installed.
    """
    uri = config.tune.mlflow_uri
    if not uri:
        return "not asked for"
    if find_spec("mlflow") is None:
        raise ClusterError(
            "tune.mlflow_uri is set, but MLflow is not installed: `pip install mlflow-skinny`, or "
            "leave tune.mlflow_uri empty"
        )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    try:
        experiment = MlflowClient(tracking_uri=uri).get_experiment_by_name(config.name)
    except Exception as error:  # of each kind of place, the library's that reads it
        raise ClusterError(
            f"cannot reach MLflow at tune.mlflow_uri = {uri}: {error}. Start a server "
            "(`mlflow server`), correct the address, or leave it empty"
        ) from error
    return f"{uri}, experiment {config.name} {'is there' if experiment else 'will be made'}"


def mlflow_callbacks(config: JobConfig, search: str) -> tuple[Callback, ...]:
    """Callbacks of Ray Tune that log the trials of a search; empty without ``tune.mlflow_uri``."""
    if not config.tune.mlflow_uri:
        return ()
    # Where MLflow is installed this imports it, which takes seconds.
    from ray_jobs.results.mlflow_trials import TrialRuns

    return (
        TrialRuns(
            tracking_uri=config.tune.mlflow_uri,
            experiment_name=config.name,
            tags={"search": search},
        ),
    )
