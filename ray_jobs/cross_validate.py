"""Compare the models on each of several splits, and over the test rows of all of them.

For published folds, such as u1 to u5 of ml-100k: ``cross_validate.folds`` names the files of each.
Every fold is a run of its own, ``runs/<name>.<fold>``, with a search of its own on validation rows
that are drawn from its training rows, so that no choice depends on the test rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from foundation.cli import main
from foundation.errors import ConfigError
from ray_jobs.cli import job
from ray_jobs.configurations import require_test_errors
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
    if not config.cross_validate.folds:
        raise ConfigError(
            "cross_validate.folds names no fold. Give each one's files, as "
            "configs/datasets/ml-100k.toml does: "
            '--set \'cross_validate.folds={a={train=["a.train"], test=["a.test"]}}\''
        )
    require_test_errors(config, "its folds are published test rows")
    from ray_jobs.cluster import preflight
    from ray_jobs.report.cross_validation import write_folds_report
    from ray_jobs.results.run import Workspace
    from ray_jobs.stages.cross_validation import cross_validate

    workspace = Workspace(config, redo)
    with preflight.job(workspace):
        write_folds_report(cross_validate(workspace), config, workspace.paths)


if __name__ == "__main__":
    raise SystemExit(main(command))
