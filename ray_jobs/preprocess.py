"""Bring the data in and prepare them: features, splits, weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from foundation.console import say
from ray_jobs.cli import main

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig

EXAMPLES: Final = (
    "--config configs/protocols/losses.toml",
    "--set data.source=folder --set data.path=FOLDER --set split.kind=global-time",
)


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Bring the stages up to this one up to date."""
    from ray_jobs.cluster import preflight
    from ray_jobs.results.run import Workspace
    from ray_jobs.stages.graph import Stages

    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        say(f"prepared data: {Stages(workspace).prepared.folder}")


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run, examples=EXAMPLES))
