"""Compare the losses, several seeds each, with each other and with the baselines.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows; with ``compare.refit_on_validation`` they are first trained again
on both for as many epochs. All losses are scored on the same scales. A model is called better than
another one only if their difference on the same rows is significant.
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
    from ray_jobs.stages.comparison import compare
    from ray_jobs.stages.graph import Stages

    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        stages = Stages(workspace)
        compare(workspace, stages.raw, stages.prepared, stages.best_trial)


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
