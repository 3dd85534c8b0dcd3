"""List the runs of a storage with their results, or compare two of them.

Reads what runs have left; nothing is trained and Ray is not started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from foundation.cli import main
from foundation.console import log_to_console
from foundation.errors import ConfigError
from ray_jobs.cli import job

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig

EXAMPLES: Final = ("", "--match blend --dataset ml-latest-small", "quickstart blend")

PARAMETERS: Final = (
    click.Argument(
        ["names"],
        nargs=-1,
        metavar="[RUN RUN]",
        help="two runs to compare; without them all are listed",
    ),
    click.Option(["--match"], default="", metavar="TEXT", help="list runs with TEXT in their name"),
    click.Option(["--dataset"], default="", metavar="NAME", help="list runs of this data set"),
    click.Option(
        ["--parts"], is_flag=True, help="also list the runs that are splits or folds of another one"
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="print JSON"),
)


@job("runs", __doc__, PARAMETERS, EXAMPLES, runs_stages=False)
def command(
    config: JobConfig,
    *,
    names: tuple[str, ...],
    match: str,
    dataset: str,
    parts: bool,
    as_json: bool,
) -> None:
    """List runs, or compare two.

    Raises:
        ConfigError: unless no run or two are named.
    """
    if len(names) not in (0, 2):
        raise ConfigError(f"found {len(names)} names of runs; expected two to compare, or none")
    if names and (match or dataset or parts):
        raise ConfigError("--match, --dataset and --parts are for lists of runs")
    log_to_console(to_stderr=True)
    from ray_jobs.queries.runs import Filter, compare_runs, list_runs
    from ray_jobs.results.run import Workspace

    storage = Workspace(config).storage
    if names:
        compare_runs(storage, *names, as_json=as_json)
    else:
        list_runs(storage, Filter(match, dataset, parts), as_json=as_json)


if __name__ == "__main__":
    raise SystemExit(main(command))
