"""Read the data and prepare them: features, splits, weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from foundation.cli import main
from foundation.console import say_result
from ray_jobs.cli import job
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig

EXAMPLES: Final = (
    "--config configs/protocols/losses.toml",
    "--set data.source=folder --set data.path=FOLDER --set split.kind=global-time",
)


@job("preprocess", __doc__, examples=EXAMPLES)
def command(config: JobConfig, *, redo: Redo) -> None:
    """Run the stages up to this one, as far as they are not up to date."""
    from ray_jobs.stages.graph import stages_of

    with stages_of(config, redo=redo) as stages:
        say_result(f"prepared data: {stages.prepared.folder}")


if __name__ == "__main__":
    raise SystemExit(main(command))
