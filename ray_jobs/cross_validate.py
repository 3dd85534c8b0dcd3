"""Compare the models on each of several splits, and over the test rows of all of them.

For published folds, such as u1 to u5 of ml-100k, ``cross_validate.folds`` names the files of each;
``cross_validate.split_seeds`` makes random splits, as ``movie-ratings compare --splits 5`` does.
Every fold is a run of its own, ``runs/<name>.<fold>``, with a search of its own on validation rows
that are drawn from its training rows, so that no choice depends on the test rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from foundation.cli import main
from ray_jobs.cli import job
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig

EXAMPLES: Final = (
    "--config configs/protocols/ml-100k.toml --set data.path=FOLDER",
    "--config configs/protocols/ml-100k.toml --set data.path=FOLDER --set compare.seeds=[0]",
)


@job("cross-validate", __doc__, examples=EXAMPLES)
def command(config: JobConfig, *, redo: Redo) -> None:
    """Compare the models on every fold, and summarise.

    Raises:
        ConfigError: if no fold is configured, or test rows are not to be scored.
    """
    from ray_jobs.report.cross_validation import run_cross_validation

    run_cross_validation(config, redo)


if __name__ == "__main__":
    raise SystemExit(main(command))
