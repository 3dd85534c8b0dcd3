"""What every main shares: options, configuration, and errors turned into exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Final

from ray.exceptions import RayError
from ray.tune import TuneError

from ingest.config import apply_overrides, build, read_toml
from ingest.errors import ConfigError, IngestError
from ncf.errors import NcfError
from ray_jobs.cluster import LOGS
from ray_jobs.config import JobConfig
from ray_jobs.console import complain
from ray_jobs.errors import JobError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every job has."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--config", metavar="FILE", help="configuration, TOML")
    result.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change one setting; may be given many times",
    )
    result.add_argument(
        "--force", action="store_true", help="do every stage again, though nothing changed"
    )
    return result


def load_config(path: str | None, overrides: Sequence[str]) -> JobConfig:
    """The configuration in ``path``, changed by ``overrides``.

    Raises:
        ConfigError: if it cannot be read or is invalid.
    """
    values = apply_overrides(read_toml(path) if path else {}, overrides)
    return build(JobConfig, values, path or "the command line")


def main(
    description: str,
    run: Callable[[JobConfig, argparse.Namespace], None],
    arguments: Sequence[str] | None = None,
    add_options: Callable[[argparse.ArgumentParser], None] = lambda options: None,
) -> int:
    """Parse, build, run: the body of every ``python -m ray_jobs.*``; returns the exit code."""
    options = parser(description)
    add_options(options)
    parsed = options.parse_args(arguments)
    try:
        run(load_config(parsed.config, parsed.overrides), parsed)
    except ConfigError as error:
        complain(str(error))
        return EXIT_USAGE
    except (IngestError, NcfError, JobError) as error:
        complain(str(error))
        return EXIT_FAILED
    except OSError as error:
        complain(f"{error.strerror or error}: {error.filename or 'no file named'}")
        return EXIT_FAILED
    except (RayError, TuneError) as error:
        reason = str(error).strip().splitlines()[-1]
        complain(f"Ray failed: {reason}. Its logs are in {LOGS}.")
        return EXIT_FAILED
    except KeyboardInterrupt:
        complain(
            "interrupted; the same command goes on from the last finished stage, and in a search "
            "from the last finished trial"
        )
        return EXIT_INTERRUPTED
    return 0
