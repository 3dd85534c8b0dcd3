"""Command line of the ingester: ``python -m ingest ratings | tmdb | synthetic``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from foundation.cli import DONE, FAILED, INTERRUPTED, WRONG_USAGE, Parser, nearest, positive
from foundation.config import Section, apply_overrides, build, keys, read_configs
from foundation.console import log_to_stderr
from foundation.errors import ConfigError, MovieRatingsError
from foundation.storage import Storage
from ingest import dataset
from ingest.config import DataConfig, TmdbConfig
from ingest.dataset import RawData
from ingest.manifest import read_tables_manifest
from ingest.registry import SYNTHETIC, meanings
from ingest.sources.selection import name_of, selected_class
from ingest.tmdb.crawl import CrawlSummary
from ingest.tmdb.shards import Shards

_PROG: Final = "python -m ingest"
_PACKAGE: Final = "ingest"

# By name, because the name of this module is __main__ when it is run.
logger = logging.getLogger(_PACKAGE)


class Settings(Section):
    """What the ingester reads of a configuration."""

    storage: str = "./artifacts"
    data: DataConfig = DataConfig()
    tmdb: TmdbConfig = TmdbConfig()


@dataclass(frozen=True)
class Outcome:
    """What a command did: as text, as JSON, and as an exit code."""

    lines: tuple[str, ...]
    values: dict[str, Any]
    code: int = DONE


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; the exit code. The result goes to stdout, everything else to stderr."""
    options = parser().parse_args(argv)
    with log_to_stderr(_PACKAGE):
        try:
            outcome = _run(options, load_settings(options), environ)
        except ConfigError as error:
            logger.error("ingest: %s", error)
            return WRONG_USAGE
        except MovieRatingsError as error:
            logger.error("ingest: %s", error)
            return FAILED
        except KeyboardInterrupt:
            logger.error("ingest: interrupted. What was fetched is kept; run again to continue.")
            return INTERRUPTED
    text = json.dumps(outcome.values, indent=2) if options.json else "\n".join(outcome.lines)
    sys.stdout.write(f"{text}\n")
    return outcome.code


def load_settings(options: argparse.Namespace) -> Settings:
    """The settings that the command line asks for.

    Raises:
        ConfigError: if the file or an option is wrong.
    """
    known = set(Settings.model_fields)
    for override in options.set:
        key = override.partition("=")[0].strip()
        section = key.partition(".")[0]
        if section not in known:
            close = nearest(key, keys(Settings))
            raise ConfigError(
                f"--set {override!r}: the ingester has no section {section!r}. Valid: "
                f"{', '.join(sorted(known))}" + (f". Did you mean {close!r}?" if close else "")
            )
    values = apply_overrides(read_configs(options.config, Settings), options.set, keys(Settings))
    values = {key: value for key, value in values.items() if key in known}
    if options.storage:
        values["storage"] = options.storage
    if options.command == "synthetic":
        values["data"] = {**values.get("data", {}), "source": SYNTHETIC}
    return build(Settings, values, ", ".join(options.config) or "the command line")


def _run(options: argparse.Namespace, settings: Settings, environ: Mapping[str, str]) -> Outcome:
    storage = Storage.at(settings.storage)
    if getattr(options, "purge", False):
        return _purge(storage, dry_run=options.dry_run)
    if options.dry_run:
        return _dry_run(options, settings, storage)
    if options.command == "tmdb":
        return _tmdb(options, settings, storage, environ)
    return _ratings(options, settings, storage)


def _ratings(options: argparse.Namespace, settings: Settings, storage: Storage) -> Outcome:
    """Read the tables, and the TMDb records of a source that brings its own."""
    tables = dataset.prepare_tables(settings.data, storage / "raw", force=options.force)
    summary: CrawlSummary | None = None
    notices: tuple[str, ...] = ()
    if dataset.uses_tmdb(tables, settings.tmdb, None):
        summary, notices = dataset.crawl_dataset(tables, settings.tmdb, None)
    return _described(dataset.finish(tables, settings.tmdb, notices), summary)


def _tmdb(
    options: argparse.Namespace,
    settings: Settings,
    storage: Storage,
    environ: Mapping[str, str],
) -> Outcome:
    """Fetch TMDb's records; the tables are read first if they are missing."""
    wanted = settings.tmdb.model_copy(update={"enabled": True})
    credentials = dataset.credentials_for(settings.data, wanted, environ)
    tables = dataset.prepare_tables(settings.data, storage / "raw")
    summary, notices = dataset.crawl_dataset(
        tables, wanted, credentials, limit=options.limit, refetch=options.force
    )
    return _described(dataset.finish(tables, wanted, notices), summary)


def _described(data: RawData, summary: CrawlSummary | None = None) -> Outcome:
    """The summary at the end."""
    values: dict[str, Any] = {
        "dataset": data.name,
        "folder": str(data.folder),
        "synthetic": data.synthetic,
        "ratings": data.num_ratings,
        "users": data.num_users,
        "movies": data.num_movies,
        "tmdb": data.tmdb_coverage,
        "fingerprint": data.fingerprint,
        "licence": data.licence,
        "attribution": list(data.attribution),
        "notices": list(data.notices),
        "crawl": asdict(summary) if summary else None,
        "failures": Shards(data.folder).failures(),
    }
    coverage = ", ".join(f"{count:,} {status}" for status, count in data.tmdb_coverage.items())
    lines = (
        f"data set   {data.name} in {data.folder}",
        f"ratings    {data.num_ratings:,} by {data.num_users:,} users",
        f"movies     {data.num_movies:,}",
        f"TMDb       {coverage or 'no records'}",
        f"licence    {data.licence}",
        *(f"note       {notice}" for notice in data.notices),
    )
    failed = summary is not None and summary.failed > 0
    return Outcome(lines, values, code=FAILED if failed else DONE)


def _dry_run(options: argparse.Namespace, settings: Settings, storage: Storage) -> Outcome:
    """What would be done, without requests and without writing."""
    name = name_of(settings.data)
    folder = storage / "raw" / name
    tables = read_tables_manifest(folder)
    values: dict[str, Any] = {
        "dry_run": True,
        "dataset": name,
        "folder": str(folder),
        "tables": "present" if tables else "absent",
    }
    lines = [f"data set   {name} in {folder}", f"tables     {values['tables']}"]
    if tables and options.command == "tmdb":
        pending = _pending(options, settings, folder)
        values["tmdb"] = pending
        lines += [f"{key:<10} {value:,}" for key, value in pending.items()]
    elif options.command == "tmdb":
        lines.append("TMDb       unknown: the tables have to be ingested first")
    return Outcome(tuple(lines), values)


def _pending(options: argparse.Namespace, settings: Settings, folder: Storage) -> dict[str, int]:
    """Movies by the state of their TMDb records, and how many would be fetched."""
    standing = dataset.standing(folder, settings.tmdb, refetch=options.force)
    to_fetch = len(standing.pending[: options.limit])
    rate = settings.tmdb.requests_per_second
    is_local = selected_class(settings.data).has_tmdb_records
    return {
        "fresh": len(standing.fresh),
        "stale": len(standing.stale),
        "failed": len(standing.failed),
        "untried": len(standing.untried),
        "to_fetch": to_fetch,
        "seconds": 0 if is_local else round(to_fetch / rate),
    }


def _purge(storage: Storage, *, dry_run: bool) -> Outcome:
    """Remove the TMDb records of every raw data set."""
    purged = dataset.purge(storage, dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    lines = [f"{name}: {files} files of TMDb records {verb}" for name, files in purged.items()]
    lines = lines or [f"no TMDb records under {storage / 'raw'}"]
    if purged:
        lines.append(
            "Prepared data, checkpoints and reports made from them are kept; delete them yourself "
            "if TMDb's terms require it."
        )
    return Outcome(tuple(lines), {"purged": purged, "dry_run": dry_run})


# -- options ---------------------------------------------------------------------------------------


def parser() -> Parser:
    """The command line."""
    result = Parser(
        _PROG,
        "Read ratings and TMDb records and write them as Parquet. COMMAND --help lists the options "
        "of a command.",
        ("ratings --config configs/protocols/losses.toml", "tmdb --dry-run", "synthetic --json"),
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _command(
        commands.add_parser,
        "ratings",
        "read the ratings of a data source, downloaded if necessary",
        (
            "--config configs/protocols/losses.toml",
            "--set data.source=ml-1m --set data.path=FOLDER",
        ),
        force="read the files again even if they have not changed",
        details=f"data.source is one of these: {meanings()}.",
        aliases=("movielens",),
    )
    tmdb = _command(
        commands.add_parser,
        "tmdb",
        "fetch the TMDb record of each movie, continuing an earlier crawl",
        ("--dry-run", "--limit 100 --set tmdb.requests_per_second=20", "--purge"),
        force="fetch every record again, whatever its age",
    )
    tmdb.add_argument(
        "--limit", type=positive, metavar="N", help="fetch at most N movies, then stop"
    )
    tmdb.add_argument(
        "--purge", action="store_true", help="remove all TMDb records under the storage, then stop"
    )
    _command(
        commands.add_parser,
        "synthetic",
        "generate a MovieLens- and TMDb-shaped data set whose true model is known",
        ("", "--storage FOLDER --set data.synthetic.num_ratings=100000"),
        force="generate the data again even if the settings have not changed",
    )
    return result


def _command(
    add_parser: Callable[..., Parser],
    name: str,
    purpose: str,
    examples: tuple[str, ...],
    *,
    force: str,
    details: str = "",
    aliases: tuple[str, ...] = (),
) -> Parser:
    """A command with the options that all commands have."""
    result = add_parser(
        name,
        help=purpose,
        purpose=f"{purpose[0].upper()}{purpose[1:]}. {details}",
        examples=examples,
        aliases=aliases,
    )
    result.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="configuration, TOML; may be given many times, later files taking precedence; its "
        "sections for the training jobs are not read",
    )
    result.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting, such as data.source=ml-1m; may be given many times",
    )
    result.add_argument(
        "--storage", metavar="PLACE", help="folder or URI for outputs (default ./artifacts)"
    )
    result.add_argument("--force", action="store_true", help=force)
    result.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )
    result.add_argument("--json", action="store_true", help="print the summary as JSON")
    return result


if __name__ == "__main__":
    # With Python's and Arrow's memory from one place, a crawl of 100,000 takes 20 MiB less.
    pa.set_memory_pool(pa.system_memory_pool())
    raise SystemExit(main())
