"""Predict ratings for a CSV of (user, movie) pairs by the model that a run has kept.

Uses the model that ``python -m ray_jobs.train`` keeps, as it is: it trains nothing and starts no
Ray. The CSV has the columns userId and movieId, and optionally timestamp (seconds since 1970 UTC),
which only models that look at times read: the time that the prediction is for, by default the day
from which the ages of ratings count, that of the newest training rating.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import csv

from ingest.storage import Storage
from ncf.fitted import UNKNOWN
from ncf.serving import Recommender
from ray_jobs.config import JobConfig
from ray_jobs.console import say
from ray_jobs.kept import kept_model, load_model
from ray_jobs.own_rows import read_pairs
from ray_jobs.runtime import main
from ray_jobs.workspace import Workspace

EXAMPLES: Final = ("--config configs/closed-form.toml PAIRS.CSV --out PREDICTIONS.CSV",)


def predict(workspace: Workspace, pairs: Path, out: Storage) -> None:
    """Write the rows of ``pairs`` to ``out``, a CSV too, with the column ``prediction`` (stars).

    Raises:
        NoModelError: if the run has no checkpoint.
        DatasetError: if ``pairs`` cannot be used.
        StorageError: if ``out`` cannot be written.
    """
    asked = Recommender(load_model(kept_model(workspace)))
    table = read_pairs(pairs, asked)
    users = table["userId"].to_numpy()
    times = table["timestamp"].to_numpy() if "timestamp" in table.column_names else None
    found = asked.predict(users, table["movieId"].to_numpy(), times)
    with out.writing() as stream:
        csv.write_csv(table.append_column("prediction", pa.array(found)), stream)
    unknown = int((asked.checkpoint.fitted.user_index(users) == UNKNOWN).sum())
    say(f"{len(table):,} predictions: {out}")
    if unknown:
        say(
            f"note: {unknown:,} rows have a user without a training rating; their predictions rest "
            "on the movie alone"
        )


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """This stage alone."""
    predict(Workspace(config), Path(options.pairs), Storage.at(options.out))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this command alone."""
    parser.add_argument(
        "pairs",
        metavar="PAIRS.CSV",
        help="CSV: userId, movieId, optionally timestamp (seconds since 1970 UTC, when the "
        "prediction is for; by default the day of the newest training rating)",
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="CSV to write")


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run, add_options=add_options, examples=EXAMPLES))
