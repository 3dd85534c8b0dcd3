"""Rows that the workers of a machine share, in real processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset
from ray_jobs.training import shared_rows
from ray_jobs.training.shared_rows import SharedRows
from ray_jobs.training.split_cache import NodeMemory, SplitCache
from tests.ncf.prepared import write_prepared
from tests.ray_jobs.made import FITTED, ROWS
from tests.support import ROOT


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the shared files are."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)  # it has been read from the environment before
    return folder


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedDataset:
    splits = {"train": ROWS, "validation": ROWS[:2], "test": ROWS[:0]}
    return write_prepared(tmp_path / "prepared", splits, FITTED)


def assert_same(found: Batch | None, expected: Batch | None) -> None:
    assert found is not None
    assert expected is not None
    for ours, theirs in zip(vars(found).values(), vars(expected).values(), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_the_second_one_reads_what_the_first_one_has_written(
    place: Path, prepared: PreparedDataset
) -> None:
    first, second = SharedRows(prepared), SharedRows(prepared)
    assert_same(first.of("train"), prepared.rows("train"))
    assert first.of("test") is None
    shutil.rmtree(f"{prepared.folder}/ratings")
    assert_same(second.of("train"), ROWS)

    kept = second.of("train")
    first.release()
    assert len(folders(place)) == 1  # the second one uses it
    second.release()
    assert list(place.iterdir()) == []
    assert_same(kept, ROWS)  # what is mapped stays


def test_what_one_changes_no_other_sees(place: Path, prepared: PreparedDataset) -> None:
    first, second = SharedRows(prepared), SharedRows(prepared)
    one, other = first.of("train"), second.of("train")
    assert one is not None
    one.ratings.add_(1)
    assert_same(other, ROWS)
    first.release()
    second.release()


USER = """
import sys
from pyarrow import fs
from ncf.data.dataset import PreparedDataset
from ray_jobs.training.shared_rows import SharedRows

rows = SharedRows(PreparedDataset.open(fs.LocalFileSystem(), sys.argv[1]))
rows.of("train")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(place: Path, prepared: PreparedDataset) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the rows until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, prepared.folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_files_in_use_stay_and_those_of_killed_processes_are_removed_by_the_next(
    other: subprocess.Popen[str], place: Path, prepared: PreparedDataset, tmp_path: Path
) -> None:
    splits = {"train": ROWS[:3], "validation": ROWS[:0], "test": ROWS[:0]}
    another = write_prepared(tmp_path / "another", splits, FITTED)
    (theirs,) = folders(place)

    for is_alive in (True, False):
        if not is_alive:
            other.kill()
            other.wait()
        rows = SharedRows(another)
        assert_same(rows.of("train"), ROWS[:3])
        assert theirs.exists() is is_alive
        rows.release()


def test_workers_of_a_node_share_and_a_single_one_does_not(
    place: Path, prepared: PreparedDataset
) -> None:
    for memory, count in (
        (NodeMemory(1), 0),
        (NodeMemory(2), 1),
        (NodeMemory(2, num_datasets=2), 0),
        (NodeMemory(3, num_datasets=2), 1),
    ):
        rows = SplitCache(prepared, torch.device("cpu"), memory=memory)
        assert rows._read("validation") is not None
        assert len(folders(place)) == count
        rows.release()
        assert list(place.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left"), SafetensorError("I/O error")])
def test_without_room_for_a_file_each_has_a_copy(
    place: Path, prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(tensors: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(shared_rows, "save_file", full)
    rows = SplitCache(prepared, torch.device("cpu"), memory=NodeMemory(2))
    assert_same(rows._read("train"), ROWS)
    assert not list(place.rglob("*.part"))
    rows.release()
    assert list(place.iterdir()) == []


def test_a_folder_of_another_user_is_not_used(
    place: Path, prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = os.getuid() + 1
    (place / f"ratings-rows-{another}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: another)
    with pytest.raises(PermissionError, match="belongs to another user"):
        SharedRows(prepared).of("train")


CYCLE = USER.replace("rows.of", "for _ in range(200):\n    rows.release()\n    rows.of").replace(
    'print("ready"', 'rows.release(); print("ready"'
)


def test_processes_that_write_and_release_at_the_same_time_never_miss_a_file(
    place: Path, prepared: PreparedDataset
) -> None:
    command = [sys.executable, "-c", CYCLE, prepared.folder]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["ready\n"] * 3
    assert list(place.iterdir()) == []


def folders(place: Path) -> list[Path]:
    """Of the data sets."""
    return list(place.glob("*/*"))
