"""The same ratings in the older releases' formats, through the same stages; others read CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.config import DataConfig, SourceName
from ncf.data.dataset import PreparedDataset
from ray_jobs.results.run import Workspace
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.stages.comparison import compare
from ray_jobs.stages.preparation import ingest, preprocess
from ray_jobs.stages.tuning import search
from ray_jobs.training.workers import Workers
from tests.ray_jobs.small import job

pytestmark = pytest.mark.ray(seconds=12)

NUM_USERS, NUM_MOVIES, NUM_RATINGS = 30, 40, 600

RANDOM = np.random.default_rng(4)
PAIRS = RANDOM.permutation(NUM_USERS * NUM_MOVIES)[:NUM_RATINGS]
USERS, MOVIES = PAIRS // NUM_MOVIES + 1, PAIRS % NUM_MOVIES + 1
STARS = RANDOM.integers(1, 6, NUM_RATINGS)
TIMES = 10**9 + RANDOM.permutation(NUM_RATINGS)
TESTED = np.arange(NUM_RATINGS) % 5 == 2
"""Rows that the files of a published split have for testing."""

GENRES = ("Drama", "Comedy")
ML_100K_GENRES = 19
DRAMA, COMEDY = 8, 5  # their places among the flags of u.item


def lines(separator: str, chosen: np.ndarray | None = None) -> str:
    rows = np.stack([USERS, MOVIES, STARS, TIMES], axis=1)[... if chosen is None else chosen]
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def title(movie: int) -> str:
    return f"Fïlm {movie} ({1950 + movie})"


def write_ml_1m(folder: Path) -> None:
    (folder / "ratings.dat").write_text(lines("::"))
    movies = (f"{m}::{title(m)}::{GENRES[m % 2]}\n" for m in range(1, NUM_MOVIES + 1))
    (folder / "movies.dat").write_text("".join(movies), encoding="latin-1")


def write_ml_100k(folder: Path) -> None:
    (folder / "u.data").write_text(lines("\t"))
    (folder / "u1.base").write_text(lines("\t", ~TESTED))
    (folder / "u1.test").write_text(lines("\t", TESTED))

    def item(movie: int) -> str:
        flags = ["0"] * ML_100K_GENRES
        flags[COMEDY if movie % 2 else DRAMA] = "1"
        return "|".join([str(movie), title(movie), f"01-Jan-{1950 + movie}", "", "", *flags])

    items = (item(m) + "\n" for m in range(1, NUM_MOVIES + 1))
    (folder / "u.item").write_text("".join(items), encoding="latin-1")


RELEASES: dict[SourceName, Any] = {
    "ml-1m": write_ml_1m,
    "ml-100k": write_ml_100k,
}


def start(storage: Path, source: SourceName, **sections: Any) -> Workspace:
    folder = storage / f"release-{source}"
    folder.mkdir(exist_ok=True)
    RELEASES[source](folder)
    data = DataConfig(source=source, path=str(folder))
    return Workspace(job(storage / source, name=source, data=data, **sections))


def rows_of(prepared: PreparedDataset, split: str) -> np.ndarray:
    """``[N, 5]`` row, user, movie, stars and time."""
    table = prepared.table(split, ["row", "user_id", "movie_index", "rating", "timestamp"])
    found = table.to_pandas()
    found["movie_index"] = prepared.preprocessor.movies.ids[found["movie_index"]]
    return found.to_numpy()


def expected_rows(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows, USERS[rows], MOVIES[rows], STARS[rows], TIMES[rows]], axis=1)


@pytest.mark.parametrize("source", RELEASES)
def test_every_release_is_prepared_and_compared(
    storage: Path, source: SourceName, workers: Workers
) -> None:
    workspace = start(
        storage,
        source,
        train={"epochs": 2, "batch_size": 128},
        tune={"num_trials": 0},
        compare={"losses": ["mse"], "seeds": [0], "baselines": ["damped-bias"], "resamples": 100},
    )
    raw = ingest(workspace)
    prepared = preprocess(workspace, raw)

    found = {split: rows_of(prepared, split) for split in ("train", "validation", "test")}
    for split in found.values():
        np.testing.assert_array_equal(split, expected_rows(split[:, 0].astype(int)))
    together = np.concatenate([split[:, 0] for split in found.values()])
    assert sorted(together) == list(range(NUM_RATINGS))
    movies = prepared.preprocessor.movies
    assert list(movies.titles) == [title(m) for m in range(1, NUM_MOVIES + 1)]
    assert prepared.preprocessor.genres == ("Comedy", "Drama")
    assert movies.genres[:, 1].tolist() == [bool(m % 2 == 0) for m in range(1, NUM_MOVIES + 1)]

    comparison = compare(
        workspace,
        raw,
        ComparedData(prepared, prepared),
        search(workspace, prepared, workers),
        workers,
    )
    assert comparison.num_test == len(found["test"]) == NUM_RATINGS // 5
    mean, _, model = comparison.entries
    training = found["train"][:, 3].mean()
    by_hand = np.sqrt(np.mean((found["test"][:, 3] - training) ** 2))
    assert mean.test[0]["rmse"] == pytest.approx(by_hand, rel=1e-6)
    assert 0.5 < model.test[0]["rmse"] < 2


def test_the_files_of_a_published_split_are_followed(storage: Path) -> None:
    files = {"train": ["u1.base"], "test": ["u1.test"]}
    split = {"kind": "files", "files": files, "validation": 0.1}
    workspace = start(storage, "ml-100k", split=split)
    prepared = preprocess(workspace, ingest(workspace))
    tested = rows_of(prepared, "test")
    np.testing.assert_array_equal(tested, expected_rows(np.flatnonzero(TESTED)))
