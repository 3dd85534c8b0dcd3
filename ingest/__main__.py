"""Command line of the ingester: ``python -m ingest ratings | tmdb | synthetic``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import click

from foundation import cli
from ingest.config import IngestConfig
from ingest.options import columns_option, quiet_option
from ingest.registry import meanings


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command; the exit code. The result goes to stdout, everything else to stderr.

    ``environ`` holds credentials in place of the environment of the program.
    """
    return cli.main(command, argv, environ)


def _command(
    name: str,
    purpose: str,
    examples: Sequence[str],
    *,
    force: str,
    details: str = "",
    options: Iterable[click.Option] = (),
) -> cli.Command:
    """A command with the options that all commands have."""
    remark = "; its sections for the training jobs are not read"
    params = (
        *cli.config_options(lambda: IngestConfig, "data.source=ml-1m", remark),
        columns_option(),
        click.Option(
            ["--storage"], metavar="PLACE", help="folder or URI for outputs (default ./artifacts)"
        ),
        click.Option(["--force"], is_flag=True, help=force),
        click.Option(["--dry-run"], is_flag=True, help="print what would be done, and do nothing"),
        click.Option(["--json"], is_flag=True, help="print the summary as JSON"),
        quiet_option(),
        *options,
    )
    return cli.Command(
        name,
        f"{purpose[0].upper()}{purpose[1:]}. {details}",
        examples=examples,
        params=params,
        callback=_callback(name),
        short_help=purpose,
    )


def _callback(name: str) -> Callable[..., int]:
    """What runs when a command line has been parsed: the work is imported only then."""

    @click.pass_obj
    def run(environ: Mapping[str, str] | None, /, **options: Any) -> int:
        from ingest import commands

        wanted = commands.Options(name, **options)
        if environ is None:
            return commands.run_program(wanted)
        return commands.run(wanted, environ)

    return run


_RATINGS: Final = _command(
    "ratings",
    "read the ratings of a data source, downloaded if necessary",
    (
        "--config configs/protocols/losses.toml",
        "--set data.source=ml-1m --set data.path=FOLDER",
    ),
    force="read the files again even if they have not changed",
    details=f"data.source is one of these: {meanings()}.",
)
_TMDB: Final = _command(
    "tmdb",
    "fetch the TMDb record of each movie, continuing an earlier crawl",
    ("--dry-run", "--limit 100 --set tmdb.requests_per_second=20", "--purge"),
    force="fetch every record again, whatever its age",
    options=(
        click.Option(
            ["--limit"],
            type=cli.PositiveInt(),
            metavar="N",
            help="fetch at most N movies, then stop",
        ),
        click.Option(
            ["--purge"],
            is_flag=True,
            help="remove all TMDb records under the storage, then stop",
        ),
    ),
)
_SYNTHETIC: Final = _command(
    "synthetic",
    "generate a MovieLens- and TMDb-shaped data set whose true model is known",
    ("", "--storage FOLDER --set data.synthetic.num_ratings=100000"),
    force="generate the data again even if the settings have not changed",
)

command: Final = cli.Group(
    "ingest",
    "Read ratings and TMDb records and write them as Parquet. COMMAND --help lists the options "
    "of a command.",
    commands=[_RATINGS, _TMDB, _SYNTHETIC],
    aliases={"movielens": "ratings"},
    examples=(
        "ratings --config configs/protocols/losses.toml",
        "tmdb --dry-run",
        "synthetic --json",
    ),
)


if __name__ == "__main__":
    raise SystemExit(main())
