"""Write the network of a run's final model as a program for other runtimes: ONNX or torch.export.

The folder has the network (users, movies and, for a model that uses them, times -> stars), tables
that map ids to the network's inputs, and export.json, which describes both. The file is read again
and compared with the model before the folder appears. Networks with history encoders, such as the
Gaussian process, cannot be exported; of a blend the network alone is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from foundation.cli import main
from foundation.console import log_to_console
from ray_jobs.cli import job

if TYPE_CHECKING:
    from ncf.inference.export import Format
    from ray_jobs.config import JobConfig

EXAMPLES: Final = ("--config configs/quickstart.toml --out exported",)

PARAMETERS: Final = (
    click.Option(
        ["--out"],
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        required=True,
        help="folder to write (required)",
    ),
    click.Option(
        ["--format", "form"],
        type=click.Choice(["onnx", "torch"]),
        default="onnx",
        show_default=True,
        help="onnx needs the extra export: pip install 'movielens-ray-tune[export]'",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="print JSON about what was written"),
)


@job(
    "export",
    __doc__,
    PARAMETERS,
    EXAMPLES,
    when_interrupted="interrupted; nothing was written",
    runs_stages=False,
)
def command(config: JobConfig, *, out: Path, form: Format, as_json: bool) -> None:
    """Export the final model as it is; no stage is run."""
    log_to_console(to_stderr=True)
    from ray_jobs.queries.export import export_network
    from ray_jobs.results.run import Workspace

    export_network(Workspace(config), out, form, as_json=as_json)


if __name__ == "__main__":
    raise SystemExit(main(command))
