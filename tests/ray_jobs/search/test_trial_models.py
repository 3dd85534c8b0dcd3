"""Which trials' weights are kept, without Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from foundation.storage import Storage
from ray_jobs.search.trial_models import TrialModels
from ray_jobs.search.trials import TrialRecord

if TYPE_CHECKING:
    from pathlib import Path


def record(number: int, rmse: float | None) -> TrialRecord:
    epochs = ({"epoch": 1, "best_validation_rmse": rmse or 0.0},)
    return TrialRecord(
        number,
        f"t{number}",
        {},
        started=1,
        ended=2,
        state="failed" if rmse is None else "finished",
        epochs=epochs,
    )


@pytest.fixture
def models(tmp_path: Path) -> TrialModels:
    found = TrialModels(Storage.at(tmp_path / "models"), 2)
    for name in ("t1", "t2", "t3", "t4", "running", ".t5.part"):
        (found.folder / name).make_folder()
    return found


def names(models: TrialModels) -> list[str]:
    return [folder.name for folder in models.folder.list_folders()]


ENDED = [record(1, 0.9), record(2, 0.8), record(3, None), record(4, 0.8)]


def test_those_of_the_best_trials_stay_the_earlier_one_first(models: TrialModels) -> None:
    models.prune(ENDED)

    assert names(models) == [".t5.part", "running", "t2", "t4"]

    TrialModels(models.folder, 1).prune(ENDED, others=True)

    assert names(models) == ["t2"]


def test_none_are_kept_if_none_are_wanted(models: TrialModels) -> None:
    none = TrialModels(models.folder, 0)
    none.prune(ENDED, others=True)

    assert names(models) == []
    assert none.of("t1") is None


def test_a_copy_in_parts_is_told_from_a_whole_one(tmp_path: Path) -> None:
    models = TrialModels(Storage.at(tmp_path / "models"), 1)
    source = tmp_path / "source"
    for which in ("best", "last"):
        (source / which).mkdir(parents=True)
        (source / which / "model.safetensors").write_bytes(b"weights")
        (source / which / "SHA256SUMS").write_text("0123  model.safetensors\n")

    Storage.at(source).copy_to(models.folder / "t1")

    assert models.kept("t1") == models.folder / "t1"
    (models.folder / "t1" / "last" / "model.safetensors").delete()
    assert models.kept("t1") is None
    (models.folder / "t1" / "last" / "SHA256SUMS").delete()
    assert models.kept("t1") is None
    assert models.kept("t2") is None
