"""Two processes give the results of one, on the same rows."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.ncf.prepared import write_prepared

PROGRAM = Path(__file__).parents[1] / "data_parallel.py"
REPOSITORY = Path(__file__).resolve().parents[3]
# The last batch of 100 has a single row, so the second worker takes a step without any row.
ROWS = {"train": 1001, "validation": 333, "test": 501}


def run_in_processes(folder: Path, model: str, size: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), model, str(rank), str(size)],
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


@pytest.fixture(scope="module", params=["five-inputs", "streamed", "gaussian-process", "encoders"])
def folder(
    request: pytest.FixtureRequest, world: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Has the results of one process, and of each of two."""
    return train_alone_and_together(request.param, world, tmp_path_factory)


def train_alone_and_together(
    model: str, world: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("data-parallel")
    splits = {split: getattr(world, split)[:count] for split, count in ROWS.items()}
    write_prepared(folder, splits, world.preprocessor)
    runpy.run_path(str(PROGRAM))["main"](folder, model, 0, 1)
    run_in_processes(folder, model, 2)
    return folder


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


def test_batch_normalisation_sees_the_rows_of_all_workers(
    world: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = train_alone_and_together("batch-normalisation", world, tmp_path_factory)
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


def test_interrupted_workers_continue_as_without_the_interruption(
    world: Any, tmp_path: Path
) -> None:
    splits = {split: getattr(world, split)[:count] for split, count in ROWS.items()}
    write_prepared(tmp_path, splits, world.preprocessor)
    run_in_processes(tmp_path, "dropout", 2)
    assert found(tmp_path, "2-0")["goes_on"]
    assert found(tmp_path, "2-1")["goes_on"]
