"""Compare losses, or fixed configurations, with each other and with baselines.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows; with ``compare.refit_on_validation`` they are first trained again
on both for as many epochs. Every model has several seeds, and all are scored on the same scales. A
model is called better than another one only if their difference on the same rows is significant.

``compare.configurations`` compares fixed configurations instead of losses, and
``compare.score_test=false`` reads no test row, for choosing settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from foundation.cli import main
from ray_jobs.cli import job
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


EXAMPLES: Final = (
    "--config configs/protocols/losses.toml",
    "--config configs/protocols/accuracy.toml --set compare.score_test=false",
)


@job("compare", __doc__, examples=EXAMPLES)
def command(config: JobConfig, *, redo: Redo) -> None:
    """Run the stages that a comparison needs, as far as they are not up to date; report it."""
    from ray_jobs.report.comparison import write_comparison_report
    from ray_jobs.stages.graph import stages_of

    with stages_of(config, redo=redo) as stages:
        write_comparison_report(stages)


if __name__ == "__main__":
    raise SystemExit(main(command))
