"""One real run of the whole pipeline, and what tests that train share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import ray
from filelock import FileLock

from foundation.storage import Storage
from ncf.data.dataset import PreparedDataset
from ray_jobs.results.run import Workspace
from ray_jobs.stages.preparation import ingest, preprocess
from ray_jobs.training.workers import Workers
from tests.ray_jobs.small import job
from tests.support import TINY, Done, run_module


@dataclass(frozen=True)
class Finished:
    """A finished pipeline."""

    storage: Path
    settings: tuple[str, ...]
    done: Done

    @property
    def run(self) -> Path:
        return self.storage / "runs" / "tiny"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = _of_all_processes(tmp_path_factory) / "pipeline"
    storage, known = folder / "artifacts", folder / "done.json"
    settings = (*TINY, "tune.max_concurrent_trials=1", f"storage={storage}")
    folder.mkdir(exist_ok=True)
    # `make test` runs tests in two processes; the second one waits for the run of the first.
    with FileLock(folder / "lock"):
        if not known.exists():
            done = run_module("ray_jobs.pipeline", settings)
            known.write_text(json.dumps(asdict(done)))
    done = Done(**json.loads(known.read_text()))
    assert done.code == 0, done.out + done.err
    return Finished(storage, settings, done)


def _of_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of this run of the tests."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="module")
def storage(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, and Ray."""
    return tmp_path_factory.mktemp("on_ray")


@pytest.fixture(scope="module")
def workers(storage: Path) -> Iterator[Workers]:
    """What the tests of a module train on, one after the other."""
    with Workers(Storage.at(storage / "workers"), max_failures=9) as workers:
        yield workers


@pytest.fixture
def run_joined(local_ray: None) -> Callable[..., Done]:
    """``run_module`` for a program that joins the Ray of the tests."""
    address = f"ray.address={ray.get_runtime_context().gcs_address}"

    def run(module: str, settings: Sequence[str], *options: str) -> Done:
        token = {"RAY_AUTH_MODE": "token"}
        return run_module(module, (*settings, address), *options, variables=token)

    return run


@pytest.fixture(scope="module")
def prepared(storage: Path) -> PreparedDataset:
    workspace = Workspace(job(storage))
    return preprocess(workspace, ingest(workspace))
