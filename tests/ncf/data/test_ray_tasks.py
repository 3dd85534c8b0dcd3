"""What tasks do to a block, in a process that has imported nothing else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from ncf.data import ray_tasks
from ncf.data.preprocessor import Preprocessor
from tests.support import ROOT

BLOCK = pa.table(
    {
        "row": [2, 3, 4],
        "user_id": [20, 10, 99],
        "movie_id": [5, 5, 9],
        "rating": pa.array([4.0, 1.5, 3.0], pa.float32()),
        "timestamp": [1_000_000_000, 0, 5],
    }
)
SLOW = ["torch", "sklearn", "scipy", "ray"]
PROGRAM = f"""
import pickle, sys
done = pickle.load(sys.stdin.buffer)()
print(done.to_pydict(), [name for name in {SLOW} if name in sys.modules])
"""


@pytest.fixture
def labels(tmp_path: Path) -> partial[np.ndarray]:
    """Row 2 is for training, row 3 for testing, row 4 for training; others are of other blocks."""
    np.save(tmp_path / "labels.npy", np.array([1, 1, 0, 2, 0, 1], dtype=np.int8))
    return partial(np.load, tmp_path / "labels.npy")


def said_by_a_worker(work: partial[pa.Table]) -> str:
    """What a new process prints that gets ``work`` pickled, as workers do, and does it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=pickle.dumps(work),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_a_worker_sums_a_block_up_without_slow_imports(labels: partial[np.ndarray]) -> None:
    expected = {
        "rated_ids": [[5, 9]],
        "user_ids": [[20, 99]],
        "movie_ids": [[5, 9]],
        "movie_counts": [[1, 1]],
        "rating_sum": [7.0],
        "rating_min": [3.0],
        "rating_max": [4.0],
        "newest": [1_000_000_000],
    }
    assert said_by_a_worker(partial(ray_tasks.statistics, BLOCK, labels)) == f"{expected} []"


def test_a_worker_writes_a_block_without_slow_imports(
    labels: partial[np.ndarray], preprocessor: Preprocessor, tmp_path: Path
) -> None:
    state = partial(pickle.loads, pickle.dumps(preprocessor))
    target = (fs.LocalFileSystem(), str(tmp_path / "prepared"))
    said = said_by_a_worker(partial(ray_tasks.write, BLOCK, labels, state, target))
    assert said == "{'rows': [3]} []"
    files = {
        str(file.relative_to(tmp_path / "prepared")): pq.read_table(file, partitioning=None)
        for file in (tmp_path / "prepared").rglob("*.parquet")
    }
    assert sorted(files) == [
        "ratings/split=test/000000000003.parquet",
        "ratings/split=train/000000000002.parquet",
    ]
    training = files["ratings/split=train/000000000002.parquet"].to_pydict()
    # Users 10, 20 and 30 have the indices 1, 2 and 3; the catalogue is 1, 2, 5, 9.
    assert (training["user_index"], training["movie_index"]) == ([2, 0], [2, 3])
    assert training["weight"][0] == 1


@pytest.mark.parametrize("rows_per_group", [1, 3, 4, 100])
def test_ranges_of_rows_are_read_whatever_the_row_groups(
    rows_per_group: int, tmp_path: Path
) -> None:
    numbers = pa.table({"row": range(10), "rating": pa.array(range(10), pa.float32())})
    file = tmp_path / "ratings.parquet"
    pq.write_table(numbers, file, row_group_size=rows_per_group)
    for start in range(10):
        for stop in range(start + 1, 11):
            block = pa.table({"start": [start], "stop": [stop]})
            found = ray_tasks.read(block, (fs.LocalFileSystem(), str(file)))
            assert found.equals(numbers.slice(start, stop - start)), (start, stop)


def test_of_a_file_without_rows_none_are_read(tmp_path: Path) -> None:
    file = tmp_path / "ratings.parquet"
    pq.write_table(BLOCK.slice(0, 0), file)

    found = ray_tasks.read(pa.table({"start": [0], "stop": [0]}), (fs.LocalFileSystem(), str(file)))

    assert found.equals(BLOCK.slice(0, 0))
