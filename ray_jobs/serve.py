"""Serve a page to try the final models, and its API.

Uses the models that ``movie-ratings train`` made, and trains nothing. Search for movies, rate some,
and get recommendations with reasons, in a browser or as JSON (docs/serve.md): by what you are
likely to choose if there is a choice model, with predicted stars if there is a rating model. It
runs on a local Ray of its own until Ctrl-C, or on the cluster that ray.address names, where it goes
on when the command ends. Only programs on the same machine reach it, unless --host says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from foundation.cli import main
from ray_jobs.cli import job

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


EXAMPLES: Final = (
    "--config configs/models/gaussian-process.toml",
    "--checkpoint artifacts/runs/gaussian-process/checkpoint --port 8001",
)
LOOPBACK: Final = "127.0.0.1"
OPTIONS: Final = (
    click.Option(
        ["--checkpoint"],
        type=click.Path(),
        metavar="FOLDER",
        help="serve this model instead of the final model of the run",
    ),
    click.Option(
        ["--port"],
        type=click.IntRange(1, 65_535),
        metavar="PORT",
        default=8000,
        help="port of the page (8000)",
    ),
    click.Option(
        ["--host"],
        default=LOOPBACK,
        metavar="HOST",
        help=f"address to listen at ({LOOPBACK}: this machine alone); 0.0.0.0 accepts requests "
        "from every machine that can reach this one",
    ),
)


@job(
    "serve",
    __doc__,
    OPTIONS,
    EXAMPLES,
    when_interrupted="interrupted; the page is no longer served",
    runs_stages=False,
)
def command(config: JobConfig, *, checkpoint: str | None, port: int, host: str) -> None:
    """Serve until interrupted."""
    from ray_jobs.web.server import serve

    serve(config, checkpoint, host, port)


if __name__ == "__main__":
    raise SystemExit(main(command))
