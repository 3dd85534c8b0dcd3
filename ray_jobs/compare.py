"""Compare losses, or fixed configurations, with each other and with baselines.

All models are trained on the training rows, stopped early on the validation rows if there are any,
and scored once on the test rows; with ``compare.refit_on_validation`` they are first trained again
on both for as many epochs. Every model has several seeds, and all are scored on the same scales. A
model is called better than another one only if their difference on the same rows is significant.

``--splits 5`` makes the comparison on five random splits, with the seeds from ``split.seed`` on,
and reports the mean difference over them with its interval.

``--with FILE`` puts a model of your own beside the others, by its predictions for the test rows:
CSV or Parquet with the columns userId, movieId and prediction. ``{fold}`` in its name stands for
the splits. ``movie-ratings preprocess --export-splits FOLDER`` writes the rows of each split.

``compare.configurations`` compares fixed configurations instead of losses, and
``compare.score_test=false`` reads no test row, for choosing settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from foundation.cli import main
from foundation.config import build
from foundation.errors import ConfigError
from ray_jobs.cli import job, splits_option, with_splits
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


EXAMPLES: Final = (
    "--config configs/protocols/losses.toml",
    "--config configs/protocols/splits.toml --set compare.score_test=false",
    "--config configs/protocols/splits.toml --splits 5",
    "--config configs/protocols/losses.toml --with svd=FILE",
)


PARAMETERS: Final = (
    splits_option("number of random splits; by default the one of split.seed"),
    click.Option(
        ["--with", "given"],
        multiple=True,
        metavar="[NAME=]FILE",
        help="predictions of a model of your own; may be repeated",
    ),
)


@job("compare", __doc__, PARAMETERS, EXAMPLES)
def command(config: JobConfig, *, redo: Redo, splits: int | None, given: tuple[str, ...]) -> None:
    """Run the stages that a comparison needs, as far as they are not up to date; report it."""
    config = _with_predictions(config, given)
    _refuse_missing(config.compare.predictions)
    if splits is not None:
        from ray_jobs.report.cross_validation import run_cross_validation

        run_cross_validation(with_splits(config, splits), redo)
        return
    from ray_jobs.report.comparison import write_comparison_report
    from ray_jobs.stages.graph import stages_of

    with stages_of(config, redo=redo) as stages:
        write_comparison_report(stages)


def _with_predictions(config: JobConfig, given: Sequence[str]) -> JobConfig:
    """The configuration with these files of predictions beside its own.

    Raises:
        ConfigError: if two have the same name, or a name cannot be used.
    """
    predictions = dict(config.compare.predictions)
    for text in given:
        name, equals, file = text.partition("=")
        if not equals:
            name, file = Path(text).name.partition(".")[0], text
        if not name or not file:
            raise ConfigError(f"--with {text!r}: expected FILE or NAME=FILE")
        if name in predictions:
            raise ConfigError(f"--with names {name!r} twice: give each its own name, NAME=FILE")
        predictions[name] = file
    if not given:
        return config
    values = config.compare.model_dump() | {"predictions": predictions}
    section = build(type(config.compare), values, "--with")
    return config.model_copy(update={"compare": section})


def _refuse_missing(files: Mapping[str, str]) -> None:
    """Refuse files of predictions that are not there, before anything is trained.

    Raises:
        ConfigError: naming the first.
    """
    for name, file in files.items():
        if "{fold}" not in file and not Path(file).expanduser().is_file():
            raise ConfigError(
                f"predictions of {name!r}: there is no file {file}. Correct the path."
            )


if __name__ == "__main__":
    raise SystemExit(main(command))
