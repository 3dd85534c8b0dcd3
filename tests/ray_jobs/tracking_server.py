"""MLflow's own tracking server with a database: `python -m tests.ray_jobs.tracking_server DIR`.

The program `mlflow server` needs the whole of MLflow; what it serves is in mlflow-skinny too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.support import running_module

_READY = "serving at "


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """Address of a server that runs during the block."""
    with running_module("tests.ray_jobs.tracking_server", (), str(folder)) as program:
        yield program.wait_for(_READY).split(_READY)[1].strip()


def runs_of(uri: str, name: str) -> list[Run]:
    """The runs of an experiment."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def _serve(folder: Path) -> None:
    # By what `mlflow server` gives the processes that it starts.
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{folder / 'mlflow.db'}"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(folder / "mlflow-artifacts")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.server import app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    sys.stdout.write(f"{_READY}http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
