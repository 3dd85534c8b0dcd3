"""Two processes give the results of one, on the same rows."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.ncf.prepared import write_prepared

pytestmark = pytest.mark.system

PROGRAM = Path(__file__).parents[1] / "data_parallel.py"
REPOSITORY = Path(__file__).resolve().parents[3]
# The last batch of 100 has a single row, so the second worker takes a step without any row.
ROWS = {"train": 1001, "validation": 333, "test": 501}


COMPARED = ("five-inputs", "streamed", "gaussian-process", "encoders")


def run_in_processes(folder: Path, size: int, models: Sequence[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), str(rank), str(size), *models],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, "\n".join(outputs)


@pytest.fixture(scope="module")
def trained(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has for each model the results of one process, and of each of two.

    Two processes train all models, since starting them takes longer.
    """
    folder = tmp_path_factory.mktemp("data-parallel")
    models = (*COMPARED, "batch-normalisation", "dropout")
    for model in models:
        (folder / model).mkdir()
    splits = {split: getattr(world, split)[:count] for split, count in ROWS.items()}
    write_prepared(folder, splits, world.preprocessor)
    runpy.run_path(str(PROGRAM))["main"](folder, 0, 1, models)
    run_in_processes(folder, 2, models)
    return folder


@pytest.fixture(params=COMPARED)
def folder(request: pytest.FixtureRequest, trained: Path) -> Path:
    """The results of one model."""
    return trained / str(request.param)


def found(folder: Path, which: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / f"{which}.json").read_text(encoding="utf-8"))
    return values


def test_shards_partition_the_rows(folder: Path) -> None:
    assert found(folder, "1-0")["rows"] == [1001, 333, 501]
    assert found(folder, "2-0")["rows"] == [501, 167, 251]
    assert found(folder, "2-1")["rows"] == [500, 166, 250]


def test_free_memory_is_the_minimum_over_workers(folder: Path) -> None:
    alone, first, second = (found(folder, which)["free"] for which in ("1-0", "2-0", "2-1"))
    assert first == second < alone / 100


@pytest.mark.parametrize("rank", [0, 1])
def test_every_worker_reports_the_epochs_of_a_single_one(folder: Path, rank: int) -> None:
    alone, together = found(folder, "1-0"), found(folder, f"2-{rank}")
    assert together["best_epoch"] == alone["best_epoch"]
    assert len(together["epochs"]) == len(alone["epochs"]) == 3
    for one, other in zip(alone["epochs"], together["epochs"], strict=True):
        del one["seconds"], other["seconds"]
        assert other == pytest.approx(one, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("rank", [0, 1])
def test_every_worker_evaluates_all_rows(folder: Path, rank: int) -> None:
    alone, together = found(folder, "1-0")["test"], found(folder, f"2-{rank}")["test"]
    assert together["num_ratings"] == alone["num_ratings"] == 501
    assert together.pop("decayed") == pytest.approx(alone.pop("decayed"), rel=1e-4)
    assert together == pytest.approx(alone, rel=1e-4)


def test_every_worker_ends_with_the_weights_of_a_single_one(folder: Path) -> None:
    alone, first, second = (
        load_file(folder / f"{which}.safetensors") for which in ("1-0", "2-0", "2-1")
    )
    assert alone.keys() == first.keys() == second.keys()
    for name, value in alone.items():
        assert torch.equal(second[name], first[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_batch_normalisation_sees_the_rows_of_all_workers(trained: Path) -> None:
    folder = trained / "batch-normalisation"
    alone, first, second = (found(folder, which)["epochs"] for which in ("1-0", "2-0", "2-1"))
    for one, *others in zip(alone, first, second, strict=True):
        for other in others:
            assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
            # Biases before a normalisation have no gradient but rounding errors, which Adam scales
            # up; the running means follow them with a delay.
            assert other["validation_rmse"] == pytest.approx(one["validation_rmse"], rel=0.01)
    weights, other_weights = (load_file(folder / f"2-{rank}.safetensors") for rank in (0, 1))
    for name, value in weights.items():
        assert torch.equal(other_weights[name], value), name


def test_interrupted_workers_continue_as_without_the_interruption(trained: Path) -> None:
    folder = trained / "dropout"
    assert found(folder, "2-0")["goes_on"]
    assert found(folder, "2-1")["goes_on"]
