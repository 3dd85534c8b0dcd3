"""A prepared folder without Ray, for tests of what reads one; not a test itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ncf.data.batches import Batch
from ncf.data.dataset import MANIFEST, Manifest, PreparedDataset
from ncf.data.preprocessor import Preprocessor, save_preprocessor


def write_prepared(
    folder: Path,
    splits: Mapping[str, Batch],
    preprocessor: Preprocessor,
    rows_per_file: int = 1000,
    rows_per_group: int = 100,
) -> PreparedDataset:
    """The rows of each split in files of several row groups, as ``ncf.data.ray_tasks`` writes
    them."""
    for split, rows in splits.items():
        target = folder / "ratings" / f"split={split}"
        target.mkdir(parents=True)
        table = pa.table(
            {
                "row": np.arange(len(rows)),
                "user_id": ids_of(rows.users.numpy(), preprocessor),
                "user_index": rows.users.numpy(),
                "movie_index": rows.movies.numpy(),
                "rating": rows.ratings.numpy(),
                "weight": rows.weights.numpy(),
                "timestamp": rows.times.numpy(),
            }
        )
        for start in range(0, len(rows), rows_per_file):
            part = table.slice(start, rows_per_file)
            pq.write_table(part, target / f"{start:012}.parquet", row_group_size=rows_per_group)
    save_preprocessor(preprocessor, folder)
    counts = {split: len(rows) for split, rows in splits.items()}
    manifest = Manifest("", counts, preprocessor.num_users, preprocessor.num_movies)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest)))
    return PreparedDataset.open(fs.LocalFileSystem(), str(folder))


def ids_of(users: npt.NDArray[np.int32], preprocessor: Preprocessor) -> npt.NDArray[np.int64]:
    """Ids of users by their index; the index where the preprocessor has no such user."""
    known = np.r_[0, preprocessor.user_ids]
    return np.where(users < len(known), known[np.minimum(users, len(known) - 1)], users)
