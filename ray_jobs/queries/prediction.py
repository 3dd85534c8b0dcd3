"""Predict ratings for a CSV of (user, movie) pairs, with the final model of a run."""

from __future__ import annotations

import errno
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import csv

from foundation.errors import StorageError
from foundation.storage import Storage
from ncf.data.preprocessor import UNKNOWN
from ncf.evaluation.predictions import EVALUATION_CHUNK
from ncf.inference.recommender import Recommender
from ray_jobs.results.final_model import final_model, load_model
from ray_jobs.results.run import Workspace
from ray_jobs.results.user_csv import Pairs, read_pairs

logger = logging.getLogger(__name__)

_BLOCK: Final = EVALUATION_CHUNK
"""Rows predicted between two checks of the time: whole chunks of the model, so that these do not
depend on it."""
_SECONDS_BETWEEN_LINES: Final = 5.0


@dataclass(frozen=True)
class Written:
    """A file with predictions."""

    file: str
    rows: int
    unknown_users: int
    """Rows whose user has no training rating."""


def predict(workspace: Workspace, pairs: Path, out: Storage) -> Written:
    """Write the rows of ``pairs`` to ``out``, a CSV too, with the column ``prediction`` (stars).

    If the model knows them, the columns ``sd``, ``low`` and ``high`` follow: standard deviations of
    the ratings, and intervals that hold 90 % of them.

    Raises:
        NoModelError: if the run has no checkpoint.
        DatasetError: if ``pairs`` cannot be used.
        StorageError: if ``out`` cannot be written.
    """
    recommender = Recommender(load_model(final_model(workspace)), by_number=True)
    wanted = read_pairs(pairs, recommender)
    table = wanted.table
    _refuse_unwritable(out)
    logger.info(f"{len(table):,} rows to predict")
    predictions = _predictions(recommender, wanted)
    with out.writing() as stream:
        for name, values in predictions.items():
            table = table.append_column(name, pa.array(values))
        csv.write_csv(table, stream)
    unknown = int((recommender.checkpoint.preprocessor.user_index(wanted.users) == UNKNOWN).sum())
    logger.info(f"{len(table):,} predictions: {out}")
    if unknown:
        logger.info(
            f"note: {unknown:,} rows have a user without a training rating; their predictions rest "
            "on the movie alone"
        )
    return Written(str(out), len(table), unknown)


def _predictions(recommender: Recommender, pairs: Pairs) -> dict[str, np.ndarray]:
    """Columns ``[N]`` in stars, block by block, with a line every few seconds on how far it is."""
    has_intervals = recommender.checkpoint.uncertainty is not None
    names = ("prediction", "sd", "low", "high") if has_intervals else ("prediction",)
    columns = np.empty((len(names), len(pairs.users)), np.float32)
    logged = time.monotonic()
    # Rows of one user together, because a Gaussian process takes time for each user of a block.
    order = np.argsort(pairs.users, kind="stable")
    all_users, all_movies = pairs.users[order], pairs.movies[order]
    table = pairs.table.take(pa.array(order))
    for start in range(0, len(table), _BLOCK):
        rows = table.slice(start, _BLOCK)
        end = start + len(rows)
        users, movies = all_users[start:end], all_movies[start:end]
        times = rows["timestamp"].to_numpy() if "timestamp" in rows.column_names else None
        if has_intervals:
            found = recommender.interval_rows(users, movies, times)
            columns[:, start:end] = found.stars, found.sd, found.low, found.high
        else:
            columns[0, start:end] = recommender.predict_rows(users, movies, times)
        if end < len(table) and time.monotonic() - logged >= _SECONDS_BETWEEN_LINES:
            logger.info(f"   {end:,} of {len(table):,} rows predicted")
            logged = time.monotonic()
    in_order = np.empty_like(columns)
    in_order[:, order] = columns
    return dict(zip(names, in_order, strict=True))


def _refuse_unwritable(out: Storage) -> None:
    """Tell before the work that no file can be written there; makes its folder, but none above."""
    if not out.is_local:
        return
    file = Path(out.path)
    try:
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if not file.parent.exists():
            file.parent.mkdir()
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise StorageError(
            f"cannot write {out}: {error.strerror}. Name a file in a folder that is there and "
            "writable with --out."
        ) from error
