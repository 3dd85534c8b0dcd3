from __future__ import annotations

from pathlib import Path

import pytest

from foundation.storage import Storage
from ray_jobs.results.comparison import ModelResult
from ray_jobs.results.stored_results import StoredResults, delete_all_but

RESULT = ModelResult(
    name="Gaussian process, with times",
    detail="seeds 0, 1",
    kind="model",
    test=({"rmse": 0.5, "decayed": {"rmse": 0.25}}, {"rmse": 0.75, "decayed": {"rmse": 0.5}}),
    validation=({"rmse": 0.5},),
    best_epochs=(3, 4),
    curves=(({"epoch": 1, "validation_rmse": 0.6},),),
    predictions=("a.parquet", "b.parquet"),
)


@pytest.fixture
def stored(tmp_path: Path) -> StoredResults[ModelResult]:
    """Holds ``RESULT`` with the key ``one``."""
    results = StoredResults(
        ModelResult, Storage.at(tmp_path / "compared"), Storage.at(tmp_path / "predictions")
    )
    for name in RESULT.predictions:
        (results.files / name).write_text(name)
    results.store("one", RESULT)
    return results


def test_a_result_is_found_by_its_name_and_key(stored: StoredResults[ModelResult]) -> None:
    assert stored.find(RESULT.name, "one") == RESULT
    assert stored.find(RESULT.name, "other") is None
    assert stored.find("NCF", "one") is None


def test_a_result_without_its_predictions_is_not_found(stored: StoredResults[ModelResult]) -> None:
    (stored.files / "b.parquet").delete()

    assert stored.find(RESULT.name, "one") is None


def test_what_is_not_kept_is_deleted_with_its_predictions(
    stored: StoredResults[ModelResult],
) -> None:
    other = ModelResult("NCF", "", "model", RESULT.test, (), predictions=("c.parquet",))
    (stored.files / "c.parquet").write_text("c")
    stored.store("two", other)
    (stored.files / "mean-of-2-seeds.parquet").write_text("of no stored result")

    files = stored.keep_only({RESULT.name: "one", "NCF": "another"})
    delete_all_but(files, stored.files)

    assert stored.find(RESULT.name, "one") == RESULT
    assert stored.find("NCF", "two") is None
    assert [file.name for file in stored.files.list_files()] == ["a.parquet", "b.parquet"]
    delete_all_but(stored.keep_only({}), stored.files)
    assert stored.files.list_files() == stored.folder.list_files() == []
