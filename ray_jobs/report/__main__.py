"""Write the report of a run: verdict, tables and plots, as HTML and Markdown.

Runs the stages whose results it describes, as far as they are not up to date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.cli import main
from ray_jobs.cli import job
from ray_jobs.configurations import require_test_errors
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


@job("report", __doc__)
def command(config: JobConfig, *, redo: Redo) -> None:
    """Run the stages that the report describes, as far as they are not up to date; write it."""
    from ray_jobs.report.pipeline import write_report
    from ray_jobs.stages.graph import stages_of
    from ray_jobs.stages.tuning import check_search

    require_test_errors(config, "the report is on the final model's errors there")
    check_search(config)
    with stages_of(config, redo=redo) as stages:
        write_report(stages)


if __name__ == "__main__":
    raise SystemExit(main(command))
