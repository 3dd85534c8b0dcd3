"""Compare the losses, several seeds each, with each other and with the baselines.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows; with ``compare.refit_on_validation`` they are first trained again
on both for as many epochs. All losses are scored on the same scales. A model is called better than
another one only if their difference on the same rows is significant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.cli import main
from foundation.console import say
from ray_jobs.cli import job

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


@job("compare", __doc__)
def command(config: JobConfig, *, force: bool) -> None:
    """Run the stages up to this one, as far as they are not up to date."""
    from ray_jobs.stages.graph import stages_of

    with stages_of(config, force=force) as stages:
        best = stages.comparison.model
        say(f"best model on the validation rows: {best}")


if __name__ == "__main__":
    raise SystemExit(main(command))
