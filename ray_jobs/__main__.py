"""The program ``movie-ratings``: its commands, one a module, and shell completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from foundation import cli

COMMANDS: Final = {
    "run": "ray_jobs.pipeline",
    "ingest": "ingest.__main__",
    "preprocess": "ray_jobs.preprocess",
    "tune": "ray_jobs.tune",
    "compare": "ray_jobs.compare",
    "train": "ray_jobs.train",
    "recommend": "ray_jobs.recommend",
    "report": "ray_jobs.report.__main__",
    "cross-validate": "ray_jobs.cross_validate",
    "predict": "ray_jobs.predict",
    "export": "ray_jobs.export",
    "runs": "ray_jobs.runs",
    "serve": "ray_jobs.serve",
    "doctor": "ray_jobs.doctor",
}
"""Modules of the commands, in the order of the help: the pipeline and its stages come first."""


@click.pass_context
def _print_help_without_command(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


command: Final = cli.Group(
    "movie-ratings",
    "Train, compare and use movie recommenders on Ray. COMMAND --help describes a command.",
    COMMANDS,
    invoke_without_command=True,
    callback=_print_help_without_command,
    examples=("run --config configs/quickstart.toml", "recommend --user 42"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    cli.enable_completion()
    return cli.main(command, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
