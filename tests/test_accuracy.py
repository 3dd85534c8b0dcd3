"""Which of several prepared folders ``benchmarks/accuracy.py`` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.accuracy import Scoring, Selection, one_to_choose_on, one_to_score
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
    assert one_to_choose_on(folders[:2]) == folders[1]
    assert one_to_score(folders) == folders[0]
    with pytest.raises(SystemExit, match=r"0 of these .* have none, .* split.validation=0"):
        one_to_score(folders[1:])


def test_both_folders_must_have_the_same_test_rows(folders: list[str], tmp_path: Path) -> None:
    chosen = Selection.open(folders[1])
    assert len(Scoring.open(folders[0], chosen).test) == 3
    splits = {"train": ROWS, "validation": ROWS[:0], "test": ROWS[:2]}
    write_prepared(tmp_path / "fewer", splits, FITTED)
    with pytest.raises(SystemExit, match="has 2 other test rows than the 3"):
        Scoring.open(str(tmp_path / "fewer"), chosen)


def test_the_second_folder_trains_on_the_validation_rows(folders: list[str]) -> None:
    with pytest.raises(SystemExit, match="has 5 training rows, not the 6 with validation rows"):
        Scoring.open(folders[0], Selection.open(folders[2]))


def test_of_more_one_must_be_named(folders: list[str]) -> None:
    with pytest.raises(SystemExit, match="2 of these folders have validation rows") as ended:
        one_to_choose_on(folders)
    assert f"{folders[1]}: 4 train, 1 validation, 3 test" in str(ended.value)
    assert f"{folders[0]}: 5 train, 0 validation, 3 test" in str(ended.value)
    with pytest.raises(SystemExit, match="0 of these"):
        one_to_choose_on(folders[:1])


def test_a_folder_without_prepared_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no prepared data"):
        one_to_choose_on([str(tmp_path)])
