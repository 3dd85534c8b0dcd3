"""Search by Ray Tune and Optuna over losses, layer sizes and more.

Persistent worker groups train the trials (``tune.executor``), ``tune.sampler`` suggests them, and
``tune.scheduler`` stops those that fall behind. They are compared by ``tune.metric`` on the
validation rows, whatever loss they train with; no test row is read. A search that was killed
continues from its records, and so does one with a larger number of trials than before.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ray_jobs.cli import main

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Bring the stages up to this one up to date."""
    from ray_jobs.cluster import preflight
    from ray_jobs.results.run import Workspace
    from ray_jobs.stages.graph import Stages
    from ray_jobs.stages.tuning import check_search

    check_search(config)
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        Stages(workspace).best_trial  # noqa: B018


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
