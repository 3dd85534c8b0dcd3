"""Which of several prepared folders ``benchmarks/published.py`` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.published import open_with_validation
from ncf.data.batches import concatenated
from tests.ncf.prepared import write_prepared
from tests.ray_jobs.made import FITTED, ROWS


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Those that a run leaves which trains its last model on validation rows too, and another."""
    both = concatenated(ROWS, ROWS[:1])
    for name, train, validation in (
        ("refit", both, ROWS[:0]),
        ("first", ROWS, ROWS[:1]),
        ("other", ROWS, ROWS[:2]),
    ):
        splits = {"train": train, "validation": validation, "test": ROWS[:3]}
        write_prepared(tmp_path / name, splits, FITTED)
    return [str(tmp_path / name) for name in ("refit", "first", "other")]


def test_the_only_one_with_validation_rows_is_taken(folders: list[str]) -> None:
    assert open_with_validation(folders[:2]).folder == folders[1]
    assert open_with_validation(folders[1:2]).folder == folders[1]


def test_of_more_one_must_be_named(folders: list[str]) -> None:
    with pytest.raises(SystemExit, match="2 of these folders have validation rows") as ended:
        open_with_validation(folders)
    assert f"{folders[1]}: 4 train, 1 validation, 3 test" in str(ended.value)
    assert f"{folders[0]}: 5 train, 0 validation, 3 test" in str(ended.value)
    with pytest.raises(SystemExit, match="0 of these"):
        open_with_validation(folders[:1])


def test_a_folder_without_prepared_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no prepared data"):
        open_with_validation([str(tmp_path)])
