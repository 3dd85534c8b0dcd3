"""Train the final model with the best configuration.

First on the training rows, with the best epoch chosen on the validation rows; then, unless
``final.refit_on_validation`` is false, again on both for that many epochs. The test rows are read
once, to score the final model.
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
    from ray_jobs.stages.training import train

    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        stages = Stages(workspace)
        train(workspace, stages.raw, stages.prepared, stages.best_trial)


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
