"""A page to try the final model, and its API.

Uses the model that ``python -m ray_jobs.train`` made, and trains nothing. Search for
films, rate some, and get recommendations with reasons, in a browser or as JSON (docs/serve.md). It
runs on a local Ray of its own until Ctrl-C, and only programs on this machine reach it, unless
--host says otherwise.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from ray_jobs.cli import main

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig


LOOPBACK: Final = "127.0.0.1"


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Serve until interrupted."""
    from ray_jobs.web.server import serve

    serve(config, options.checkpoint, options.host, options.port)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this command alone."""
    parser.add_argument(
        "--checkpoint", metavar="FOLDER", help="serve this model instead of the run's kept one"
    )
    parser.add_argument("--port", type=_port, default=8000, help="port of the page (8000)")
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help=f"address to listen at ({LOOPBACK}: this machine alone); 0.0.0.0 lets everybody in "
        "who reaches this machine",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"not a port from 1 to 65535: {text!r}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(
        main(
            __doc__ or "",
            run,
            add_options=add_options,
            examples=(
                "--config configs/models/gaussian-process.toml",
                "--checkpoint artifacts/runs/gaussian-process/checkpoint --port 8001",
            ),
            when_interrupted="interrupted; the page is no longer served",
            has_stages=False,
        )
    )
