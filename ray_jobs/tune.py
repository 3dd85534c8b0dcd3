"""Search by Ray Tune and Optuna over losses, layer sizes and more.

Persistent worker groups train the trials (``tune.executor``), ``tune.sampler`` suggests them, and
``tune.scheduler`` stops those that fall behind. They are compared by ``tune.metric`` on the
validation rows, whatever loss they train with; no test row is read. A search that was killed
continues from its records, and so does one with a larger number of trials than before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.cli import main
from foundation.console import say_result
from ray_jobs.cli import job
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


@job("tune", __doc__)
def command(config: JobConfig, *, redo: Redo) -> None:
    """Run the stages up to this one, as far as they are not up to date."""
    from ray_jobs.stages.graph import stages_of
    from ray_jobs.stages.tuning import check_search

    check_search(config)
    with stages_of(config, redo=redo) as stages:
        for chosen in stages.best_parameters:
            say_result(f"best configuration: {chosen or 'as configured, without a search'}")


if __name__ == "__main__":
    raise SystemExit(main(command))
