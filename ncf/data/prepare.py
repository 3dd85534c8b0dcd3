"""Raw tables -> prepared data set, with Ray Data. The only module of ``ncf`` that imports Ray.

Two streaming passes over the ratings::

    pass 1   read -> statistics of a block's training rows          -> merged here
             movie table: joined, imputed, de-skewed, encoded        (small: in memory)
    pass 2   read -> join with the movie table, encode, weight       -> ratings/split=.../*.parquet

There is no ``Dataset.join`` or ``groupby``: the movie table has at most some 10^5 rows, so sending
it to every task is cheaper than a shuffle, which has a fixed cost of seconds, as has a global
aggregate.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from pyarrow import fs

from foundation.schemas import (
    MOVIE_NAMES,
    MOVIES,
    NAMES,
    RATINGS,
    TMDB,
    USER_NAMES,
    check_schema,
)
from ncf.config import FeaturesConfig, SplitConfig, TimeDecayConfig
from ncf.data import features, ray_tasks, split_files, splits
from ncf.data.dataset import MANIFEST, Manifest, PreparedDataset
from ncf.data.features import TrainingStatistics
from ncf.data.preprocessor import FORMAT_VERSION, Integers, Preprocessor
from ncf.data.ray_tasks import PREPARED
from ncf.errors import DataError

logger = logging.getLogger(__name__)

_ROWS_PER_BLOCK: Final = 1 << 20
"""Rows of one task, as many as PyArrow writes into a row group by default."""


@dataclass(frozen=True)
class PreparationConfig:
    """Configuration of the preparation; its hash names the folder."""

    split: SplitConfig
    features: FeaturesConfig
    time_decay: TimeDecayConfig
    train_on_validation: bool = False
    """Treat validation rows as training rows: for the final model."""
    use_tmdb: bool = True
    """Join ``tmdb.parquet``, if it exists; it may stem from an earlier run."""
    split_folder: str = ""
    """Local folder that the relative names in ``split.files`` refer to."""

    def as_dict(self) -> dict[str, Any]:
        """Everything that changes the prepared files, for hashing.

        Raises:
            DataError: if a file of ``split.files`` cannot be read.
        """
        decay = self.time_decay.model_dump(mode="json")
        del decay["apply_to"]  # decides how the weights are used, not their values
        split = self.split.model_dump(mode="json")
        if self.split.files:
            # Their content matters, not their location.
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
) -> PreparedDataset:
    """Prepare the raw data set in folder ``raw`` into folder ``destination``.

    Raises:
        DataError: if the raw tables are absent, empty, or of another schema version, or if the
            split's files do not match them.
    """
    filesystem, folder = raw
    movies = _read_movies(filesystem, folder, use_tmdb=config.use_tmdb)
    labels = _split_labels(filesystem, folder, config)
    ratings = _ratings(filesystem, folder)
    labels_ref = ray.put(labels)
    logger.info(f"first pass over {len(labels):,} ratings: statistics of the training rows")
    statistics = training_statistics(ratings, labels_ref, movies["movie_id"].to_numpy())
    preprocessor = _with_external_ids(
        features.fit(statistics, movies, config.features, config.time_decay), filesystem, folder
    )
    logger.info("second pass: encode, weight and write the ratings")
    _write(ratings, labels_ref, preprocessor, destination)
    manifest = Manifest(
        fingerprint=fingerprint,
        counts={name: int((labels == number).sum()) for number, name in enumerate(splits.SPLITS)},
        num_users=preprocessor.num_users,
        num_movies=preprocessor.num_movies,
    )
    _write_last(destination, preprocessor, manifest)
    return PreparedDataset.open(*destination)


def training_statistics(
    ratings: ray.data.Dataset, labels_ref: Any, catalogue: Integers
) -> TrainingStatistics:
    """One streaming pass: each block yields its sums, which are merged here.

    Raises:
        DataError: if a movie with a rating of any split is not in ``catalogue``.
    """
    of_blocks = ratings.map_batches(
        ray_tasks.statistics,
        fn_kwargs={"labels": _fetching(labels_ref)},
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
    )
    found = pa.concat_tables(ray.get(of_blocks.to_arrow_refs()))
    absent = np.setdiff1d(_flat(found, "rated_ids"), catalogue)
    if len(absent):
        raise DataError(
            f"{len(absent)} rated movies are not in the movies table, the first is {absent[0]}"
        )
    return _merge_statistics(found)


def _with_external_ids(
    fitted: Preprocessor, filesystem: fs.FileSystem, folder: str
) -> Preprocessor:
    """With the ids that the data have, if these are texts."""
    users = _external_ids(filesystem, f"{folder}/{USER_NAMES}", fitted.user_ids)
    movies = _external_ids(filesystem, f"{folder}/{MOVIE_NAMES}", fitted.movies.ids)
    table = replace(fitted.movies, external_ids=movies)
    return replace(fitted, movies=table, external_user_ids=users)


def _external_ids(
    filesystem: fs.FileSystem, path: str, numbers: Integers
) -> tuple[str, ...] | None:
    if not filesystem.get_file_info(path).is_file:
        return None
    # Names are numbered from 1, in the order of the file.
    names = _checked_table(filesystem, path, NAMES)["name"]
    return tuple(names.take(pa.array(numbers - 1)).to_pylist())


def _ratings(filesystem: fs.FileSystem, folder: str) -> ray.data.Dataset:
    """The raw ratings, read by the tasks that need them.

    ``ray.data.read_parquet`` starts processes of its own to list the file and to read its footer,
    which takes a second for each pass; here the footer says which rows are whose.
    """
    path = f"{folder}/ratings.parquet"
    num_rows = _parquet(filesystem, path).metadata.num_rows
    starts = range(0, max(1, num_rows), _ROWS_PER_BLOCK)
    ranges = [
        pa.table({"start": [s], "stop": [min(s + _ROWS_PER_BLOCK, num_rows)]}) for s in starts
    ]
    return ray.data.from_arrow(ranges).map_batches(
        ray_tasks.read,
        fn_kwargs={"raw": (filesystem, path)},
        batch_format="pyarrow",
        batch_size=None,
    )


def _parquet(filesystem: fs.FileSystem, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(filesystem.open_input_file(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"cannot read {path}: {error}. Run the ingest stage first.") from error


def _read_movies(filesystem: fs.FileSystem, folder: str, *, use_tmdb: bool) -> pd.DataFrame:
    """The movies table joined with TMDb's."""
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
    """``[N] int8`` in file order; only the columns that the kind of split needs are read."""
    path = f"{folder}/ratings.parquet"
    file = _parquet(filesystem, path)
    try:
        check_schema(file.schema_arrow, RATINGS, path)
    except ValueError as error:
        raise DataError(str(error)) from error
    if config.split.kind == "random":
        labels = splits.assign_at_random(config.split, file.metadata.num_rows)
    elif config.split.kind == "files":
        pairs = _columns(file, "user_id", "movie_id")
        labels = split_files.assign(config.split, config.split_folder, *pairs)
    else:
        labels = splits.assign(config.split, *_columns(file, "user_id", "timestamp"))
    return splits.fold_validation_into_training(labels) if config.train_on_validation else labels


def _columns(file: pq.ParquetFile, *names: str) -> tuple[Integers, ...]:
    """Whole columns, read one after the other so that Arrow holds a copy of one at a time."""
    return tuple(file.read(columns=[name])[name].to_numpy() for name in names)


def _merge_statistics(found: pa.Table) -> TrainingStatistics:
    movie_ids, position = np.unique(_flat(found, "movie_ids"), return_inverse=True)
    counts = np.zeros(len(movie_ids), dtype=np.int64)
    np.add.at(counts, position, _flat(found, "movie_counts"))
    return TrainingStatistics(
        user_ids=np.unique(_flat(found, "user_ids")),
        movie_ids=movie_ids,
        movie_counts=counts,
        rating_sum=pc.sum(found["rating_sum"]).as_py(),
        rating_min=pc.min(found["rating_min"]).as_py(),
        rating_max=pc.max(found["rating_max"]).as_py(),
        newest=pc.max(found["newest"]).as_py(),
    )


def _flat(found: pa.Table, name: str) -> Integers:
    """The entries of all blocks' lists."""
    return pc.list_flatten(found[name]).to_numpy()


def _fetching(reference: Any) -> Callable[[], Any]:
    """A function that fetches an object from Ray's store; it unpickles without this module."""
    return partial(ray.get, reference)


def _write(
    ratings: ray.data.Dataset,
    labels_ref: Any,
    preprocessor: Preprocessor,
    destination: tuple[fs.FileSystem, str],
) -> None:
    written = ratings.map_batches(
        ray_tasks.write,
        fn_kwargs={
            "labels": _fetching(labels_ref),
            "preprocessor": _fetching(ray.put(preprocessor)),
            "destination": destination,
        },
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
    )
    written.materialize()


def _write_last(
    destination: tuple[fs.FileSystem, str], preprocessor: Preprocessor, manifest: Manifest
) -> None:
    """Write the manifest after everything else, because it makes the folder valid."""
    filesystem, folder = destination
    preprocessor.save(filesystem, folder)
    with filesystem.open_output_stream(f"{folder}/{MANIFEST}") as stream:
        stream.write(json.dumps(asdict(manifest), indent=2).encode())
