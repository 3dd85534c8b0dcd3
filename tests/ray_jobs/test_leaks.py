"""Jobs choose and keep the same whatever the test rows hold; tests/ncf/test_leaks.py has more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.raw_data import RawData
from ncf.baselines import ALL
from ncf.config import LossName
from ncf.data.dataset import PreparedDataset
from ncf.data.splits import TEST, Labels, assign_at_random
from ray_jobs.results.comparison import Comparison, ModelResult
from ray_jobs.results.run import Workspace
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.stages.comparison import compare
from ray_jobs.stages.preparation import ingest, preprocess
from ray_jobs.stages.tuning import search
from ray_jobs.training.workers import Workers
from tests.planted import Columns, permuted
from tests.ray_jobs import small

pytestmark = pytest.mark.ray(seconds=45)

Change = Callable[[Columns, Labels], Columns]

MODEL = ("model.safetensors", "fitted.json", "users.parquet", "movies.parquet", "history.parquet")
"""Files of a checkpoint, but for the time that it took."""

SETTINGS: dict[str, Any] = {
    "name": "run",
    "model": {
        "embedding_dim": 4,
        "hidden_dims": [8],
        "history": {"encoders": ["statistics"], "vector_dim": 4},
    },
    "train": {"epochs": 4, "batch_size": 256, "patience": 1},
    "tune": {
        "num_trials": 0,
        "max_concurrent_trials": 1,  # else the sampler's suggestions depend on which ends first
        "space": {"train.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}},
    },
    "compare": {
        "losses": ["mse", "l1"],
        "seeds": [0],
        "trials_per_loss": 2,
        "refit_on_validation": True,
        "resamples": 100,
        "trials_per_baseline": 3,
        "blends": {"blend": ["NCF, mse", "damped bias", "LightGBM"]},
    },
}


def changed(workspace: Workspace, raw: RawData, change: Change) -> RawData:
    """The raw data with other ratings or times, in place."""
    file = Path(raw.folder.path) / "ratings.parquet"
    table = pq.read_table(file)
    labels = assign_at_random(workspace.config.split, len(table))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    pq.write_table(pa.table(change(columns, labels), schema=table.schema), file)
    return replace(raw, fingerprint=raw.fingerprint + "changed")


LOSSES: tuple[LossName, ...] = ("mse", "l1")


def other_ratings(columns: Columns, labels: Labels) -> Columns:
    """Test ratings in another order, and higher: a permutation alone changes no mean."""
    tested = labels == TEST
    return columns | {"rating": permuted(columns["rating"], tested) + np.float32(3) * tested}


def test_no_choice_and_no_model_depends_on_the_test_ratings(
    storage: Path, workers: Workers
) -> None:
    """Of the searches of each loss, which do not even read test rows, and of the comparison, whose
    models and baselines are trained again on the validation rows."""
    before = start(storage / "before")
    expected = compared(before, workers)
    after = start(storage / "after", other_ratings)
    with without_test_rows(after.prepared):
        for loss in LOSSES:
            search(after.workspace, after.prepared, workers, loss)
    found = compared(after, workers)

    for loss in LOSSES:
        trials = trials_of(before, loss)
        assert trials["config.train.learning_rate"].nunique() == 2
        pd.testing.assert_frame_equal(trials_of(after, loss), trials, check_exact=True)
        assert chosen_by(after, loss) == chosen_by(before, loss)
    assert len(expected.entries) == len(ALL) + len(LOSSES) + 1  # the blend
    for one, other in zip(found.entries, expected.entries, strict=True):
        assert one.test != other.test
        assert outcome(one) == outcome(other)
        pd.testing.assert_frame_equal(
            predictions_of(after, one), predictions_of(before, other), check_exact=True
        )
    assert (found.model, found.baseline) == (expected.model, expected.baseline)


def compared(job: Job, workers: Workers) -> Comparison:
    workspace, raw, prepared = job
    final = preprocess(workspace, raw, workers, train_on_validation=True)
    best = search(workspace, prepared, workers)
    return compare(workspace, raw, ComparedData(prepared, final), best, workers)


class Job(NamedTuple):
    """What ``compare`` takes, but for what a search chose."""

    workspace: Workspace
    raw: RawData
    prepared: PreparedDataset


def start(storage: Path, change: Change | None = None, **sections: Any) -> Job:
    """A job whose data are prepared, after a ``change`` of its raw ratings."""
    workspace = Workspace(small.job(storage, **SETTINGS | sections))
    raw = ingest(workspace)
    if change:
        raw = changed(workspace, raw, change)
    return Job(workspace, raw, preprocess(workspace, raw))


@contextmanager
def without_test_rows(prepared: PreparedDataset) -> Iterator[None]:
    rows = Path(prepared.folder) / "ratings" / "split=test"
    aside = rows.rename(Path(prepared.folder) / "aside")
    yield
    aside.rename(rows)


def folder_of(job: Job, loss: str) -> Path:
    return Path(job.workspace.run.path) / "searches" / loss


def chosen_by(job: Job, loss: str) -> tuple[dict[str, Any], list[bytes]]:
    """The chosen configuration, and the model that it was found with."""
    folder = folder_of(job, loss)
    best = json.loads((folder / "best_config.json").read_text())
    model = folder / best.pop("models") / "best"
    return best, [(model / name).read_bytes() for name in MODEL]


def trials_of(job: Job, loss: str) -> pd.DataFrame:
    trials = pq.read_table(folder_of(job, loss) / "trials.parquet").to_pandas()
    return trials.drop(columns=["trial_id", "seconds", "waited"])


def outcome(entry: ModelResult) -> Any:
    """What was chosen, and on which grounds."""
    errors = [[epoch["validation_rmse"] for epoch in curve] for curve in entry.curves]
    return entry.name, entry.detail, entry.validation, entry.best_epochs, errors


def predictions_of(job: Job, entry: ModelResult) -> pd.DataFrame:
    """For the test rows."""
    (name,) = entry.predictions
    return pq.read_table(Path(job.workspace.run.path) / "predictions" / name).to_pandas()
