"""Raw tables -> prepared ratings and fitted state, with Ray Data. The only module of ncf with Ray.

Two streaming passes over the ratings::

    pass 1   read -> statistics of a block's training rows          -> merged here
             movie table: joined, imputed, de-skewed, encoded        (small: in memory)
    pass 2   read -> join with the movie table, encode, weight       -> ratings/split=.../*.parquet

Why no ``Dataset.join`` or ``groupby``: the movie side has at most some 10^5 rows, so sending it to
every task is cheaper than a shuffle, and a shuffle or global aggregate has a fixed cost of seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from pyarrow import fs

from ingest.schemas import MOVIES, RATINGS, TMDB, check_schema
from ncf import features, split_files, splits
from ncf.config import FeaturesConfig, SplitConfig, TimeDecayConfig
from ncf.errors import DataError
from ncf.features import TrainingStatistics
from ncf.fitted import FORMAT_VERSION, FittedState, Integers
from ncf.prepared import MANIFEST, PREPARED, Manifest, Prepared

_ROWS_PER_BLOCK: Final = 1_000_000
"""Rows of one task. Since Ray 2.60 the reader decides by itself, by the bytes of row groups."""


@dataclass(frozen=True)
class PreparationConfig:
    """What preparing depends on; its hash names the folder."""

    split: SplitConfig
    features: FeaturesConfig
    time_decay: TimeDecayConfig
    train_on_validation: bool = False
    """Fold the validation rows into the training rows: for the final model."""
    use_tmdb: bool = True
    """Join ``tmdb.parquet``, if it is there; it may be left from a run that used it."""
    split_folder: str = ""
    """Local folder where the relative names of ``split.files`` start."""

    def as_dict(self) -> dict[str, Any]:
        """Everything that changes the prepared files, for hashing.

        Raises:
            DataError: if a file of ``split.files`` cannot be read.
        """
        decay = self.time_decay.model_dump(mode="json")
        del decay["apply_to"]  # decides what the weights are used for, not what they are
        split = self.split.model_dump(mode="json")
        if self.split.files:
            # What they list counts, not where they are.
            split["files"] = split_files.checksums(self.split.files, self.split_folder)
        return {
            "split": split,
            "features": self.features.model_dump(mode="json"),
            "time_decay": decay,
            "train_on_validation": self.train_on_validation,
            "use_tmdb": self.use_tmdb,
            "format_version": FORMAT_VERSION,
            "columns": PREPARED.names,
        }


def prepare(
    raw: tuple[fs.FileSystem, str],
    destination: tuple[fs.FileSystem, str],
    config: PreparationConfig,
    fingerprint: str,
) -> Prepared:
    """Prepare the raw data set in folder ``raw`` into folder ``destination``.

    Raises:
        DataError: if the raw tables are absent, empty, or of another schema version, or if the
            split's files do not fit them.
    """
    filesystem, folder = raw
    movies = _read_movies(filesystem, folder, use_tmdb=config.use_tmdb)
    labels = _split_labels(filesystem, folder, config)
    ratings = _ratings(filesystem, folder)
    labels_ref = ray.put(labels)
    statistics = training_statistics(ratings, labels_ref, movies["movie_id"].to_numpy())
    fitted = features.fit(statistics, movies, config.features, config.time_decay)
    _write(ratings, labels_ref, fitted, destination)
    manifest = Manifest(
        fingerprint=fingerprint,
        counts={name: int((labels == number).sum()) for number, name in enumerate(splits.SPLITS)},
        num_users=fitted.num_users,
        num_movies=fitted.num_movies,
    )
    _write_last(destination, fitted, manifest)
    return Prepared.open(*destination)


def training_statistics(
    ratings: ray.data.Dataset, labels_ref: Any, catalogue: Integers
) -> TrainingStatistics:
    """One streaming pass: each block yields its own sums, merged here.

    Raises:
        DataError: if a movie with a rating of any split is not in ``catalogue``.
    """
    partial = ratings.map_batches(
        _block_statistics,
        fn_kwargs={"labels_ref": labels_ref},
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
    )
    blocks = partial.take_all()
    absent = np.setdiff1d(_concatenated(blocks, "rated_ids"), catalogue)
    if len(absent):
        raise DataError(
            f"{len(absent)} rated movies are not in the movies table, the first is {absent[0]}"
        )
    return _merge_statistics(blocks)


def _ratings(filesystem: fs.FileSystem, folder: str) -> ray.data.Dataset:
    num_rows = _parquet(filesystem, f"{folder}/ratings.parquet").metadata.num_rows
    return ray.data.read_parquet(
        f"{folder}/ratings.parquet",
        filesystem=filesystem,
        override_num_blocks=max(1, -(-num_rows // _ROWS_PER_BLOCK)),
    )


def _parquet(filesystem: fs.FileSystem, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(filesystem.open_input_file(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"cannot read {path}: {error}. Run the ingest stage first.") from error


def _read_movies(filesystem: fs.FileSystem, folder: str, *, use_tmdb: bool) -> pd.DataFrame:
    """The joined movie side of the data."""
    movies = _checked_table(filesystem, f"{folder}/movies.parquet", MOVIES)
    tmdb_path = f"{folder}/tmdb.parquet"
    tmdb = None
    if use_tmdb and filesystem.get_file_info(tmdb_path).is_file:
        table = _checked_table(filesystem, tmdb_path, TMDB)
        tmdb = table.select(["movie_id", *features.TMDB_COLUMNS])
        for name in features.TMDB_LISTS:
            tmdb = tmdb.append_column(name, _ids_of(table[name]))
    return features.join_movies(
        movies.to_pandas(), None if tmdb is None else tmdb.to_pandas(date_as_object=False)
    )


def _ids_of(lists: pa.ChunkedArray) -> pa.ListArray:
    """The ids in lists of TMDb's people or keywords."""
    combined = lists.combine_chunks()
    ids = pc.struct_field(combined.flatten(), "id")
    offsets = np.concatenate([[0], np.cumsum(combined.value_lengths().to_numpy())])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), ids)


def _checked_table(filesystem: fs.FileSystem, path: str, schema: pa.Schema) -> pa.Table:
    file = _parquet(filesystem, path)
    try:
        check_schema(file.schema_arrow, schema, path)
    except ValueError as error:
        raise DataError(str(error)) from error
    return file.read()


def _split_labels(
    filesystem: fs.FileSystem, folder: str, config: PreparationConfig
) -> splits.Labels:
    """``[N] int8`` in file order; eight and sixteen bytes a row are read for it, no more."""
    path = f"{folder}/ratings.parquet"
    file = _parquet(filesystem, path)
    try:
        check_schema(file.schema_arrow, RATINGS, path)
    except ValueError as error:
        raise DataError(str(error)) from error
    other = "movie_id" if config.split.kind == "files" else "timestamp"
    table = file.read(columns=["user_id", other])
    columns = table["user_id"].to_numpy(), table[other].to_numpy()
    if config.split.kind == "files":
        labels = split_files.assign(config.split, config.split_folder, *columns)
    else:
        labels = splits.assign(config.split, *columns)
    return splits.fold_validation_into_training(labels) if config.train_on_validation else labels


def _block_statistics(block: pa.Table, labels_ref: Any) -> pa.Table:
    """One row that holds the sums over a block's training rows, and all its movies."""
    labels = ray.get(labels_ref)[block["row"].to_numpy()]
    rows = block.filter(pa.array(labels == splits.TRAIN))
    movie_ids, movie_counts = np.unique(rows["movie_id"].to_numpy(), return_counts=True)
    ratings = rows["rating"].to_numpy().astype(np.float64)
    return pa.table(
        {
            "rated_ids": [np.unique(block["movie_id"].to_numpy())],
            "user_ids": [np.unique(rows["user_id"].to_numpy())],
            "movie_ids": [movie_ids],
            "movie_counts": [movie_counts],
            "rating_sum": [ratings.sum()],
            "rating_min": [ratings.min(initial=np.inf)],
            "rating_max": [ratings.max(initial=-np.inf)],
            "newest": [rows["timestamp"].to_numpy().max(initial=np.iinfo(np.int64).min)],
        }
    )


def _merge_statistics(blocks: list[dict[str, Any]]) -> TrainingStatistics:
    movie_ids, position = np.unique(_concatenated(blocks, "movie_ids"), return_inverse=True)
    counts = np.zeros(len(movie_ids), dtype=np.int64)
    np.add.at(counts, position, _concatenated(blocks, "movie_counts"))
    return TrainingStatistics(
        user_ids=np.unique(_concatenated(blocks, "user_ids")),
        movie_ids=movie_ids,
        movie_counts=counts,
        rating_sum=sum(b["rating_sum"] for b in blocks),
        rating_min=min(b["rating_min"] for b in blocks),
        rating_max=max(b["rating_max"] for b in blocks),
        newest=int(max(b["newest"] for b in blocks)),
    )


def _concatenated(blocks: list[dict[str, Any]], name: str) -> Integers:
    # Ray returns an empty list as floats, and floats cannot hold every id.
    return np.concatenate([np.asarray(block[name], dtype=np.int64) for block in blocks])


def _encode(block: pa.Table, labels_ref: Any, fitted_ref: Any) -> pa.Table:
    """Raw rating rows -> prepared ones: the join with the movie table, indices and weights."""
    fitted: FittedState = ray.get(fitted_ref)
    timestamps = block["timestamp"].to_numpy()
    labels = ray.get(labels_ref)[block["row"].to_numpy()]
    return pa.table(
        {
            "row": block["row"],
            "user_id": block["user_id"],
            "user_index": fitted.user_index(block["user_id"].to_numpy()).astype(np.int32),
            "movie_index": fitted.movies.index_of(block["movie_id"].to_numpy()).astype(np.int32),
            "rating": block["rating"],
            "weight": fitted.decay_weight(timestamps),
            "timestamp": timestamps,
            "split": pa.array(np.array(splits.SPLITS)[labels]),
        },
        schema=PREPARED,
    )


def _write(
    ratings: ray.data.Dataset,
    labels_ref: Any,
    fitted: FittedState,
    destination: tuple[fs.FileSystem, str],
) -> None:
    filesystem, folder = destination
    encoded = ratings.map_batches(
        _encode,
        fn_kwargs={"labels_ref": labels_ref, "fitted_ref": ray.put(fitted)},
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
    )
    encoded.write_parquet(f"{folder}/ratings", filesystem=filesystem, partition_cols=["split"])


def _write_last(
    destination: tuple[fs.FileSystem, str], fitted: FittedState, manifest: Manifest
) -> None:
    """The manifest makes the folder valid, so nothing may come after it."""
    filesystem, folder = destination
    fitted.save(filesystem, folder)
    with filesystem.open_output_stream(f"{folder}/{MANIFEST}") as stream:
        stream.write(json.dumps(asdict(manifest), indent=2).encode())
