"""Train the final model with the best configuration.

First on the training rows, with the best epoch chosen on the validation rows; then, unless
``final.refit_on_validation`` is false, again on both for that many epochs. The test rows are read
once, to score the final model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.cli import main
from foundation.console import say_result
from ray_jobs.cli import job
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


@job("train", __doc__)
def command(config: JobConfig, *, redo: Redo) -> None:
    """Run the stages up to this one, as far as they are not up to date."""
    from ray_jobs.stages.graph import stages_of

    with stages_of(config, redo=redo) as stages:
        for model in stages.final_models:
            say_result(f"final model: {model.checkpoint}")


if __name__ == "__main__":
    raise SystemExit(main(command))
