"""Compare losses, or fixed configurations, with each other and with baselines.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows; with ``compare.refit_on_validation`` they are first trained again
on both for as many epochs. Every model has several seeds, and all are scored on the same scales. A
model is called better than another one only if their difference on the same rows is significant.

``--splits 5`` makes the comparison on five random splits, with the seeds from ``split.seed`` on,
and reports the mean difference over them with its interval.

``compare.configurations`` compares fixed configurations instead of losses, and
``compare.score_test=false`` reads no test row, for choosing settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from foundation.cli import main
from foundation.errors import ConfigError
from ray_jobs.cli import job
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


EXAMPLES: Final = (
    "--config configs/protocols/losses.toml",
    "--config configs/protocols/splits.toml --set compare.score_test=false",
    "--config configs/protocols/splits.toml --splits 5",
)


PARAMETERS: Final = (
    click.Option(
        ["--splits"],
        type=click.IntRange(2, 100),
        metavar="NUMBER",
        help="number of random splits; by default the one of split.seed",
    ),
)


@job("compare", __doc__, PARAMETERS, EXAMPLES)
def command(config: JobConfig, *, redo: Redo, splits: int | None) -> None:
    """Run the stages that a comparison needs, as far as they are not up to date; report it."""
    if splits is not None:
        from ray_jobs.report.cross_validation import run_cross_validation

        run_cross_validation(_with_splits(config, splits), redo)
        return
    from ray_jobs.report.comparison import write_comparison_report
    from ray_jobs.stages.graph import stages_of

    with stages_of(config, redo=redo) as stages:
        write_comparison_report(stages)


def _with_splits(config: JobConfig, number: int) -> JobConfig:
    """The configuration with so many split seeds.

    Raises:
        ConfigError: if the split does not depend on a seed.
    """
    if config.split.kind != "random":
        raise ConfigError(
            f'--splits draws random splits, but split.kind = "{config.split.kind}" gives the same '
            "one with every seed: leave one of them out"
        )
    seeds = tuple(config.split.seed + i for i in range(number))
    section = type(config.cross_validate)(split_seeds=seeds)
    return config.model_copy(update={"cross_validate": section})


if __name__ == "__main__":
    raise SystemExit(main(command))
