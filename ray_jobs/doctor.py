"""Check whether a job can run with these options, and say what to change if not.

Every job starts with the same checks and stops at the first that fails; this command runs all of
them and nothing else. It exits with 1 if one failed.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click
from rich.table import Table

from foundation.cli import main
from foundation.console import log_to_console, show, show_json
from ray_jobs.cli import job
from ray_jobs.errors import ClusterError
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.cluster.preflight import Finding
    from ray_jobs.config import JobConfig

EXAMPLES: Final = (
    "--config configs/protocols/losses.toml",
    "--config configs/quickstart.toml --set ray.address=auto",
)

_MARKS: Final = {"ok": "ok", "doubt": "NOTE", "failed": "FAILED"}


OPTIONS: Final = (
    click.Option(["--json", "as_json"], is_flag=True, help="print the findings as JSON"),
)


@job("doctor", __doc__, OPTIONS, EXAMPLES)
def command(config: JobConfig, *, redo: Redo, as_json: bool) -> None:
    """Run every check and print the findings."""
    from ray_jobs.cluster.preflight import examine
    from ray_jobs.results.run import Workspace

    log_to_console(to_stderr=True)
    findings = list(examine(Workspace(config, redo)))
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        show(_table(findings))
    failed = [finding.name for finding in findings if finding.state == "failed"]
    if failed:
        raise ClusterError(f"a job cannot run here before this is fixed: {', '.join(failed)}")


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None)
    for column in ("check", "", "found"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(finding.name, _MARKS[finding.state], finding.found)
    return table


if __name__ == "__main__":
    raise SystemExit(main(command))
