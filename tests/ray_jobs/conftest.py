"""One real run of the whole pipeline, shared by the tests that look at what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

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
    storage = tmp_path_factory.mktemp("pipeline") / "artifacts"
    settings = (*TINY, f"storage={storage}")
    done = run_module("ray_jobs.pipeline", settings)
    assert done.code == 0, done.out + done.err
    return Finished(storage, settings, done)
