"""The rows of each split as CSV files with the ids of the data, for other programs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv as arrow_csv

from foundation.errors import ConfigError
from foundation.storage import PART_SUFFIX
from ncf.data.dataset import PreparedDataset
from ray_jobs.results.original_ids import OriginalIds

SPLITS: Final = ("train", "validation", "test")
_COLUMNS: Final = ["user_id", "movie_index", "rating", "timestamp"]


def refuse_existing(folder: Path) -> None:
    """Refuse a folder that is there and not empty.

    Raises:
        ConfigError: if it is.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(
            f"--export-splits: {folder} exists and is not empty; name a new folder, or remove it"
        )


def write_splits(folder: Path, prepared: Mapping[str, tuple[PreparedDataset, OriginalIds]]) -> None:
    """Write ``train.csv``, ``validation.csv`` and ``test.csv`` with the columns userId, movieId,
    rating and timestamp.

    Args:
        folder: appears when all is written.
        prepared: data sets by the name of their folder there; "" for the folder itself.

    Raises:
        OSError: if it cannot be written.
    """
    partial = folder.with_name(f".{folder.name}{PART_SUFFIX}")
    shutil.rmtree(partial, ignore_errors=True)
    for name, (data, ids) in prepared.items():
        (partial / name).mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            if data.manifest.counts[split]:
                arrow_csv.write_csv(_rows(data, split, ids), partial / name / f"{split}.csv")
    if folder.is_dir():
        folder.rmdir()
    partial.rename(folder)


def _rows(data: PreparedDataset, split: str, ids: OriginalIds) -> pa.Table:
    table = data.table(split, _COLUMNS)
    users = table["user_id"].to_numpy()
    movies = data.preprocessor.movies.ids[table["movie_index"].to_numpy()]
    return pa.table(
        {
            "userId": users if ids.users is None else ids.of_users(users),
            "movieId": movies if ids.movies is None else ids.of_movies(movies),
            "rating": table["rating"],
            "timestamp": table["timestamp"],
        }
    )
