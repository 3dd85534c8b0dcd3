"""Predict ratings for a CSV of (user, movie) pairs with the final model of a run.

Uses the model that ``movie-ratings train`` made; trains nothing and does not start Ray. The
CSV has the columns userId and movieId, and optionally timestamp (seconds since 1970 UTC), the time
that the prediction is for. Only models that use times read it; without it, the prediction is for
the day from which the ages of ratings count, that of the newest training rating.

The CSV that is written has the column prediction, in stars; and, unless the model was trained
without validation rows, sd (the rating's standard deviation), low and high: 90 % of ratings are
between them.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from foundation.cli import main
from foundation.console import log_to_console, show_json
from ray_jobs.cli import job

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig

EXAMPLES: Final = ("--config configs/models/gaussian-process.toml PAIRS.CSV --out PREDICTIONS.CSV",)


PARAMETERS: Final = (
    click.Argument(
        ["pairs"],
        metavar="PAIRS.CSV",
        type=click.Path(path_type=Path),
        help="CSV: userId, movieId, optionally timestamp (seconds since 1970 UTC, when the "
        "prediction is for; by default the day of the newest training rating)",
    ),
    click.Option(
        ["--out"], type=click.Path(), metavar="FILE", required=True, help="CSV to write (required)"
    ),
    click.Option(
        ["--json", "as_json"],
        is_flag=True,
        help="print JSON about the file: its name, rows, and how many are of unknown users",
    ),
)


@job(
    "predict",
    __doc__,
    PARAMETERS,
    EXAMPLES,
    when_interrupted="interrupted; nothing was written",
    runs_stages=False,
)
def command(config: JobConfig, *, pairs: Path, out: str, as_json: bool) -> None:
    """Predict with the final model as it is; no stage is run."""
    log_to_console(to_stderr=True)
    from foundation.storage import Storage
    from ray_jobs.queries.prediction import predict
    from ray_jobs.results.run import Workspace

    written = predict(Workspace(config), pairs, Storage.at(out))
    if as_json:
        show_json(asdict(written))


if __name__ == "__main__":
    raise SystemExit(main(command))
