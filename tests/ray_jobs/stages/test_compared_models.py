"""Data of compared models: the same rows for all, and errors on the same scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foundation.storage import Storage
from ncf.data.batches import Batch, concatenated
from ncf.data.dataset import PreparedDataset
from ncf.errors import DataError
from ncf.evaluation.predictions import Predictions
from ray_jobs.results.comparison import ModelResult
from ray_jobs.stages.compared_models import (
    ComparedData,
    check_rows,
    has_weights_of,
    with_weights_of,
)
from tests.ncf.prepared import write_prepared
from tests.ray_jobs.made import FITTED, ROWS


def prepared(folder: Path, train: Batch, validation: Batch, test: Batch) -> PreparedDataset:
    """Prepared rows whose fingerprint is the name of the folder."""
    splits = {"train": train, "validation": validation, "test": test}
    found = write_prepared(folder, splits, FITTED)
    return replace(found, manifest=replace(found.manifest, fingerprint=folder.name))


def data(folder: Path, train: Batch, validation: Batch, test: Batch) -> ComparedData:
    """Rows with and without those for validation among the training rows."""
    both = concatenated(train, validation)
    return ComparedData(
        prepared(folder / "selection", train, validation, test),
        prepared(folder / "final", both, ROWS[:0], test),
    )


def test_the_same_rows_are_accepted(tmp_path: Path) -> None:
    one, other = (data(tmp_path / name, ROWS, ROWS[:1], ROWS[:3]) for name in ("one", "other"))

    check_rows("other", other, one, with_test=True)
    assert one.refit
    assert not ComparedData(one.selection, one.selection).refit


@pytest.mark.parametrize(
    ("train", "validation", "test", "told"),
    [
        (ROWS, ROWS[:1], ROWS[:2], "2 test rows that are not the 3 of the comparison"),
        (ROWS, ROWS[:1], ROWS[1:], "3 test rows that are not the 3 of the comparison"),
        (ROWS[:3], ROWS[:1], ROWS[:3], "3 train rows that are not the 4"),
        (ROWS, ROWS[:2], ROWS[:3], "2 validation rows that are not the 1"),
    ],
)
def test_other_rows_are_refused(
    tmp_path: Path, train: Batch, validation: Batch, test: Batch, told: str
) -> None:
    common = data(tmp_path / "common", ROWS, ROWS[:1], ROWS[:3])
    other = data(tmp_path / "other", train, validation, test)

    with pytest.raises(DataError, match=rf"compare\.configurations\.fading have {told}"):
        check_rows("fading", other, common, with_test=True)


def test_a_comparison_for_choosing_reads_no_test_row_to_check(tmp_path: Path) -> None:
    common = data(tmp_path / "common", ROWS, ROWS[:1], ROWS[:3])
    other = data(tmp_path / "other", ROWS, ROWS[:1], ROWS[1:])
    for folder in tmp_path.glob("*/*/ratings/split=test"):
        folder.rename(folder.parent / "aside")

    check_rows("other", other, common, with_test=False)


def test_decayed_errors_are_by_the_weights_of_the_comparison(tmp_path: Path) -> None:
    halved = replace(ROWS, weights=ROWS.weights / 2)
    common = data(tmp_path / "common", ROWS, ROWS[:1], halved)
    folder = Storage.at(tmp_path / "predictions")
    stars = np.array([4.0, 1.0, 3.0, 4.5], np.float32)
    own = Predictions(stars, stars * np.float32(0.1))
    (folder / "a.parquet").write_table(own.to_arrow(np.arange(4)))
    figures = {"rmse": 0.7, "mae": 0.6, "r2": 0.1, "decayed": {"rmse": 0.1}}
    result = ModelResult("a", "", "model", (figures,), (), predictions=("a.parquet",))

    found = with_weights_of(common, result, folder)

    # Ratings 5, 1, 2 and 4: errors -1, 0, 1 and 0.5, of which the weight leaves half.
    assert found.test[0]["decayed"]["mae"] == pytest.approx(2.5 / 4 / 2)
    assert found.test[0]["decayed"]["rmse"] == pytest.approx(np.sqrt(2.25 / 4) / 2)
    assert (found.test[0]["rmse"], found.test[0]["mae"]) == (0.7, 0.6)
    written = Predictions.from_arrow((folder / "a.parquet").read_table())
    np.testing.assert_array_equal(written.stars, stars)
    np.testing.assert_array_equal(written.decayed, stars / 2)


def test_whether_weights_are_the_same(tmp_path: Path) -> None:
    one, other = (data(tmp_path / name, ROWS, ROWS[:1], ROWS[:3]) for name in ("one", "other"))

    assert has_weights_of(other, one)
    faster = write_prepared(
        tmp_path / "faster",
        {"train": ROWS, "validation": ROWS[:0], "test": ROWS},
        replace(FITTED, decay_rate_per_day=0.5),
    )
    assert not has_weights_of(ComparedData(faster, faster), one)
