"""Predict ratings for a CSV of (user, movie) pairs with the final model of a run.

Uses the model that ``python -m ray_jobs.train`` made; trains nothing and does not start Ray. The
CSV has the columns userId and movieId, and optionally timestamp (seconds since 1970 UTC), the time
that the prediction is for. Only models that use times read it; without it, the prediction is for
the day from which the ages of ratings count, that of the newest training rating.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ray_jobs.cli import main

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig

EXAMPLES: Final = ("--config configs/models/gaussian-process.toml PAIRS.CSV --out PREDICTIONS.CSV",)


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Predict with the model that there is; no stage is run."""
    from foundation.storage import Storage
    from ray_jobs.queries.prediction import predict
    from ray_jobs.results.run import Workspace

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
    raise SystemExit(
        main(
            __doc__ or "",
            run,
            add_options=add_options,
            examples=EXAMPLES,
            when_interrupted="interrupted; nothing was written",
            has_stages=False,
        )
    )
