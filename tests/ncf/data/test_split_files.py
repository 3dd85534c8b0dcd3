from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncf.config import SplitConfig
from ncf.data.split_files import assign, checksums
from ncf.data.splits import TEST, TRAIN, VALIDATION
from ncf.errors import DataError

HUGE = 2**62
# In this order in the data set; the files list them in others.
ROWS = [(1, 10), (1, 20), (HUGE, 10), (3, 10), (3, 30), (1, HUGE)]


def tabs(*rows: int) -> str:
    return "".join(f"{ROWS[row][0]}\t{ROWS[row][1]}\t4\t881250949\n" for row in rows)


def colons(*rows: int) -> str:
    return tabs(*rows).replace("\t", "::")


def csv(*rows: int, extra: str = "") -> str:
    lines = [f"{ROWS[row][0]},{ROWS[row][1]}{extra and ',3.5,0'}" for row in rows]
    return "\n".join([f"userId,movieId{extra}", *lines]) + "\n"


def split(folder: Path, files: dict[str, str], **settings: Any) -> tuple[SplitConfig, str]:
    """Files are written as they are named: those in ``test...`` are for testing."""
    for name, text in files.items():
        (folder / name).write_text(text)
    names = {"train": [n for n in files if "train" in n], "test": [n for n in files if "test" in n]}
    values = {"kind": "files", "files": names, "validation": 0, **settings}
    return SplitConfig.model_validate(values), str(folder)


def labels_of(config: SplitConfig, folder: str) -> list[int]:
    users, movies = np.array(ROWS).T
    labels = assign(config, folder, users, movies)
    assert labels.dtype == np.int8
    return labels.tolist()


@pytest.mark.parametrize(
    "files",
    [
        {"train.base": tabs(5, 2, 0, 3), "u.test": tabs(4, 1)},
        {"train.csv": csv(5, 2, 0, 3), "test.csv": csv(4, 1)},
        {"train.csv": csv(5, 2, 0, 3, extra=",rating,timestamp"), "u.test": tabs(4, 1)},
        {"train1": tabs(5, 2), "train2": csv(0, 3), "test1": tabs(4), "test2": tabs(1)},
        {"ra.train": colons(5, 2, 0, 3), "ra.test": colons(4, 1)},
        {"train": csv(5, 2, 0, 3).replace(",movieId", ' , "movieId" '), "test": tabs(4, 1)},
        {"train": "\n" + csv(5, 2, 0, 3).replace("\n", "\r"), "test": tabs(4, 1)},
        {"train": "\ufeff" + csv(5, 2, 0, 3).replace("\n", "\r\n"), "test": tabs(4, 1)},
    ],
    ids=[
        "tabs",
        "pairs",
        "csv with ratings",
        "several files",
        "colons",
        "blanks",
        "windows",
        "mac",
    ],
)
def test_rows_are_where_the_files_list_them(tmp_path: Path, files: dict[str, str]) -> None:
    assert labels_of(*split(tmp_path, files)) == [TRAIN, TEST, TRAIN, TRAIN, TEST, TRAIN]


def test_absolute_names_and_a_folder_one_level_below(tmp_path: Path) -> None:
    below = tmp_path / "ml-100k"
    below.mkdir()
    config, _ = split(below, {"train": tabs(5, 2, 0, 3), "test": tabs(4, 1)})
    assert config.files is not None
    absolute = {"train": [str(below / "train")], "test": [str(below / "test")]}
    changed = SplitConfig.model_validate({"kind": "files", "files": absolute, "validation": 0})

    assert labels_of(config, str(tmp_path)) == labels_of(config, str(below))
    assert labels_of(changed, "") == labels_of(config, str(below))


def test_validation_is_a_share_of_all_rows_drawn_from_the_training_rows(tmp_path: Path) -> None:
    users, movies = np.arange(200) // 20, np.arange(200) % 20
    lines = [f"{user}\t{movie}\t1\t0" for user, movie in zip(users, movies, strict=True)]
    (tmp_path / "base").write_text("\n".join(lines[:150]) + "\n")
    (tmp_path / "held").write_text("\n".join(lines[150:]) + "\n")

    def labels(seed: int) -> list[int]:
        values = {"files": {"train": ["base"], "test": ["held"]}, "seed": seed, "validation": 0.1}
        config = SplitConfig.model_validate({"kind": "files", **values})
        return assign(config, str(tmp_path), users, movies).tolist()

    assert np.bincount(labels(0)).tolist() == [130, 20, 50]
    assert set(labels(0)[150:]) == {TEST}
    chosen = np.flatnonzero(np.array(labels(0)) == VALIDATION)
    assert 40 < chosen.mean() < 110  # uniform over 0..149: 74.5, standard error 10
    assert labels(0) == labels(0) != labels(1)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"train": tabs(0, 1, 2, 3), "test": tabs(3, 1, 4, 5)},
            "2 ratings are in both split.files.train and split.files.test, the first: "
            "user 1, movie 20",
        ),
        (
            {"train": tabs(0, 1), "test": tabs(4)},
            "3 of 6 ratings are in neither split.files.train nor split.files.test, the first: "
            f"user {HUGE}, movie 10",
        ),
        (
            {"train": tabs(0, 1, 2, 3), "test": "7\t10\t4\t0\n1\t30\t4\t0\n" + tabs(4, 5)},
            r"2 of the 4 ratings in .*/test are not in the data set, the first: user 7, movie 10",
        ),
        (
            {"train": "userId,movie\n1,10\n", "test": tabs(4)},
            "cannot read .*/train: .*movieId.* does not exist",
        ),
        (
            {"train": "userId,movieId\n1,ten\n", "test": tabs(4)},
            "cannot read .*/train: .*Row #2: .*invalid value 'ten'",
        ),
        (
            {"train": "1\t10\n", "test": tabs(4)},
            "Expected 4 columns, got 2.*Expected lines of userId",
        ),
        ({"train": "", "test": tabs(4)}, "Empty CSV file"),
    ],
    ids=["both", "neither", "absent", "no column", "no number", "too narrow", "empty"],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, files: dict[str, str], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        labels_of(*split(tmp_path, files))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    config, folder = split(tmp_path, {"train": tabs(0, 1, 2, 3), "test": tabs(4, 5)})
    (tmp_path / "test").unlink()

    with pytest.raises(DataError, match=f"'test', but there is no file {tmp_path}/test"):
        labels_of(config, folder)
    with pytest.raises(DataError, match=r"which is not set\. Set it"):
        labels_of(config, "")
    with pytest.raises(DataError, match="there is no file"):
        checksums(config.files, folder) if config.files else None


def test_too_few_training_rows_for_a_validation_split_are_refused(tmp_path: Path) -> None:
    files = {"train": tabs(0), "test": tabs(1, 2, 3, 4, 5)}
    with pytest.raises(DataError, match="the train split is empty"):
        labels_of(*split(tmp_path, files, validation=0.2))


def test_checksums_follow_the_content_and_not_the_place(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    config, _ = split(here, {"train": tabs(0, 1, 2, 3), "test": tabs(4, 5)})
    shutil.copytree(here, there)
    assert config.files is not None

    before = checksums(config.files, str(here))
    assert checksums(config.files, str(there)) == before
    assert {name: len(sums) for name, sums in before.items()} == {"train": 1, "test": 1}

    (there / "test").write_text(tabs(5, 4))
    changed = checksums(config.files, str(there))
    assert changed["train"] == before["train"]
    assert changed["test"] != before["test"]
