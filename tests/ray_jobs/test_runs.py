"""The list of runs, and what distinguishes two of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray

from foundation.cli import main
from ray_jobs import runs


def listing(folder: Path, *arguments: str) -> int:
    return main(runs.command, ["--set", f"storage={folder}", *arguments])


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    for name, config in (
        ("first", '[split]\nkind = "random"\nseed = 1\n[train]\nepochs = 3\n'),
        ("second", '[split]\nkind = "random"\nseed = 1\n[train]\nepochs = 4\nloss = "l1"\n'),
        ("first.seed-1", ""),
    ):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text(f'name = "{name}"\n{config}')
        (folder / "dataset.json").write_text(json.dumps({"dataset": f"data of {name}"}))
    folds = [{"model": "trees", "rmse": [0.9, 0.7]}, {"model": "network", "rmse": [0.7, 0.72]}]
    (tmp_path / "runs" / "first" / "folds.json").write_text(json.dumps({"models": folds}))
    return tmp_path


def test_runs_are_listed_with_their_results(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listing(storage, "--json") == 0
    found = {run["name"]: run for run in json.loads(capsys.readouterr().out)}
    assert list(found) == ["first", "second"]  # the one with results is the newest
    assert found["first"]["best"] == "network: 0.7100"
    assert found["first"]["split"] == "random, seed 1"
    assert found["second"]["dataset"] == "data of second"
    assert found["second"]["rmse"] is None
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--match", "SEC"], ["second"]),
        (["--dataset", "data of first"], ["first"]),
        (["--parts", "--match", "first"], ["first", "first.seed-1"]),
        (["--match", "nothing"], []),
    ],
)
def test_lists_are_filtered(
    arguments: list[str], expected: list[str], storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listing(storage, "--json", *arguments) == 0
    assert [run["name"] for run in json.loads(capsys.readouterr().out)] == expected


def test_two_runs_are_compared_by_what_differs(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listing(storage, "first", "second", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {
        "train.epochs": [3, 4],
        "train.loss": [None, "l1"],
    }
    assert listing(storage, "first", "second") == 0
    shown = capsys.readouterr().out
    assert "2 settings differ" in shown
    assert "network: 0.7100" in shown


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_listed(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (storage / "runs" / "first" / "metrics.json").write_text('{"dataset": 1}')
    assert listing(storage) == 0
    printed = capsys.readouterr()
    assert "metrics.json is damaged, or was written by another version" in printed.err
    assert "second" in printed.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["first"], 2, "found 1 names of runs; expected two to compare, or none"),
        (["first", "secnd"], 1, "there is no run 'secnd' in"),
        (["first", "secnd"], 1, "Did you mean 'second'?"),
        (["first", "second", "--match", "x"], 2, "are for lists of runs"),
        (["--set", "storage=/nowhere-at-all"], 1, "has no run"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str],
    code: int,
    message: str,
    storage: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert listing(storage, *arguments) == code
    assert message in capsys.readouterr().err


def test_a_run_with_a_point_in_its_name_is_a_part_of_one_with_splits_only(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, config in (
        ("second.1", ""),
        ("third", "[cross_validate]\nsplit_seeds = [1, 2]\n"),  # not complete yet
        ("third.seed-1", ""),
    ):
        (storage / "runs" / name).mkdir()
        (storage / "runs" / name / "config.toml").write_text(config)
    assert listing(storage, "--json") == 0
    names = [run["name"] for run in json.loads(capsys.readouterr().out)]
    assert sorted(names) == ["first", "second", "second.1", "third"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.toml", b"\xff = ["),
        ("config.toml", b"name = 'x"),
        ("dataset.json", b"{"),
        ("dataset.json", b"[1]"),
        ("folds.json", b"{}"),
        ("folds.json", b"null"),
        ("folds.json", b'{"models": [{"model": "a", "rmse": []}]}'),
    ],
)
def test_a_damaged_file_hides_no_run(
    file: str, content: bytes, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (storage / "runs" / "first" / file).write_bytes(content)
    assert listing(storage, "--json", "--match", "first") == 0
    assert "first" in [run["name"] for run in json.loads(capsys.readouterr().out)]
    assert listing(storage, "first", "second") == 0
