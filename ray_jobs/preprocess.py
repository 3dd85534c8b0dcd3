"""Read the data and prepare them: features, splits, weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from foundation.cli import main
from foundation.console import say_result
from foundation.errors import ConfigError
from ray_jobs.cli import job, splits_option, with_splits
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig

EXAMPLES: Final = (
    "--config configs/protocols/losses.toml",
    "--set data.source=folder --set data.path=FOLDER --set split.kind=global-time",
    "--config configs/protocols/splits.toml --export-splits FOLDER --splits 5",
)


PARAMETERS: Final = (
    click.Option(
        ["--export-splits", "folder"],
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="write the rows of each split there as CSV, with the ids of the data",
    ),
    splits_option("--export-splits: this number of random splits, as of compare"),
)


@job("preprocess", __doc__, PARAMETERS, EXAMPLES)
def command(config: JobConfig, *, redo: Redo, folder: Path | None, splits: int | None) -> None:
    """Run the stages up to this one, as far as they are not up to date.

    Raises:
        ConfigError: if the folder for splits exists.
    """
    if splits is not None:
        if folder is None:
            raise ConfigError("--splits is for --export-splits FOLDER, which is not given")
        config = with_splits(config, splits)
    from ray_jobs.results.split_files import refuse_existing
    from ray_jobs.stages.graph import stages_of

    if folder is not None:
        refuse_existing(folder)
    with stages_of(config, redo=redo) as stages:
        say_result(f"prepared data: {stages.prepared.folder}")
        if folder is not None:
            from ray_jobs.stages.exported_splits import export_splits

            export_splits(stages, folder)
            say_result(f"splits: {folder}")


if __name__ == "__main__":
    raise SystemExit(main(command))
