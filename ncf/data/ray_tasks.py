"""Functions that Ray Data's tasks apply to a block of ratings: read, sum up, encode and write it.

A worker process imports this module before its first block, so importing it must be fast: it needs
neither torch, scikit-learn nor scipy, whose imports take longer than processing a million rows. It
does not import Ray either: objects in Ray's store are passed as functions that fetch them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ncf.data.preprocessor import Preprocessor
from ncf.data.splits import SPLITS, TRAIN, Labels

PREPARED: Final = pa.schema(
    [
        pa.field("row", pa.int64()),  # position in the release's file
        pa.field(
            "user_id", pa.int64()
        ),  # as released: distinguishes users without a training rating
        pa.field("user_index", pa.int32()),  # 0: no training rating
        pa.field("movie_index", pa.int32()),  # position in movies.parquet
        pa.field("rating", pa.float32()),  # stars
        pa.field("weight", pa.float32()),  # time decay, in (0, 1]
        pa.field("timestamp", pa.int64()),  # seconds since 1970 UTC
        pa.field("split", pa.string()),  # train, validation or test, by the folder
    ]
)

ROWS_PER_GROUP: Final = 1 << 18
"""Rows that streaming training reads together: 3 MB of a file. Between 2^16 and 2^20, it
changes the size of files and the time to read them by no more than 3 %."""

_REPEATED: Final = ["user_id", "user_index", "movie_index", "rating"]
"""Columns whose values repeat often enough for a dictionary to save time and space."""


def read(block: pa.Table, raw: tuple[fs.FileSystem, str]) -> pa.Table:
    """The rows of a Parquet file from ``start`` up to ``stop``, which are in the block's row."""
    start, stop = block["start"][0].as_py(), block["stop"][0].as_py()
    filesystem, path = raw
    with pq.ParquetFile(filesystem.open_input_file(path)) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.flatnonzero((ends > start) & (ends - sizes < stop))
        if not len(groups):
            return file.schema_arrow.empty_table()
        first = int(ends[groups[0]] - sizes[groups[0]])
        return file.read_row_groups(groups.tolist()).slice(start - first, stop - start)


def statistics(block: pa.Table, labels: Callable[[], Labels]) -> pa.Table:
    """One row with the sums over a block's training rows, and the ids of all its movies.

    ``labels`` fetches the ``[N]`` labels of all rows.
    """
    is_training = labels()[block["row"].to_numpy()] == TRAIN
    rows = block.drop_columns(["row"]).filter(pa.array(is_training))
    # Arrow finds distinct values by hashing; NumPy sorts, which is several times slower.
    movies = rows["movie_id"].value_counts()
    ratings = rows["rating"].to_numpy().astype(np.float64)
    return pa.table(
        {
            "rated_ids": _one_list(block["movie_id"].unique()),
            "user_ids": _one_list(rows["user_id"].unique()),
            "movie_ids": _one_list(movies.field("values")),
            "movie_counts": _one_list(movies.field("counts")),
            "rating_sum": [ratings.sum()],
            "rating_min": [ratings.min(initial=np.inf)],
            "rating_max": [ratings.max(initial=-np.inf)],
            "newest": [rows["timestamp"].to_numpy().max(initial=np.iinfo(np.int64).min)],
        }
    )


def _one_list(values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def write(
    block: pa.Table,
    labels: Callable[[], Labels],
    preprocessor: Callable[[], Preprocessor],
    destination: tuple[fs.FileSystem, str],
) -> pa.Table:
    """Encode a block and write one file for each split; return the number of rows.

    Ray's own ``write_parquet`` does not preserve the order of rows, so readers would have to sort
    them. A task that Ray repeats writes the same files again.
    """
    filesystem, folder = destination
    of_block = labels()[block["row"].to_numpy()]
    rows = _encode(block, preprocessor())
    for number, split in enumerate(SPLITS):
        chosen = rows.filter(pa.array(of_block == number))
        if len(chosen):
            target = f"{folder}/ratings/split={split}"
            filesystem.create_dir(target, recursive=True)
            pq.write_table(
                chosen,
                f"{target}/{chosen['row'][0].as_py():012}.parquet",
                filesystem=filesystem,
                row_group_size=ROWS_PER_GROUP,
                use_dictionary=_REPEATED,
            )
    return pa.table({"rows": [len(block)]})


def _encode(block: pa.Table, preprocessor: Preprocessor) -> pa.Table:
    """Raw rating rows -> prepared ones: the join with the movie table, indices and weights."""
    timestamps = block["timestamp"].to_numpy()
    columns = {
        "row": block["row"],
        "user_id": block["user_id"],
        "user_index": preprocessor.user_index(block["user_id"].to_numpy()).astype(np.int32),
        "movie_index": preprocessor.movies.index_of(block["movie_id"].to_numpy()).astype(np.int32),
        "rating": block["rating"],
        "weight": preprocessor.decay_weight(timestamps),
        "timestamp": block["timestamp"],
    }
    # The folder's name holds the split.
    return pa.table(columns, schema=pa.schema([f for f in PREPARED if f.name != "split"]))
