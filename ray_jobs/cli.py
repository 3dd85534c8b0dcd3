"""What every main shares: options, configuration, and errors turned into exit codes."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Final

from foundation.cli import DONE, FAILED, INTERRUPTED, WRONG_USAGE, Parser
from foundation.config import apply_overrides, build, keys, read_configs
from foundation.console import log_to_console
from foundation.errors import ConfigError, MovieRatingsError
from ray_jobs.config import JobConfig
from ray_jobs.configurations import with_configurations

logger = logging.getLogger(__name__)

Run = Callable[[JobConfig, argparse.Namespace], None]

_EXAMPLES: Final = (
    "--config configs/protocols/losses.toml",
    "--config configs/quickstart.toml --set tune.num_trials=50",
)
_ENVIRONMENT: Final = """\
  RAY_ADDRESS         Ray cluster to join, unless ray.address names one
"""

_GOES_ON: Final = (
    "interrupted; the same command goes on from the last finished stage, and in a search from the "
    "last finished trial"
)


def parser(
    prog: str, purpose: str, examples: Sequence[str] = _EXAMPLES, *, has_stages: bool = True
) -> Parser:
    """A parser with the options that every job has, and those of one that makes stages."""
    result = Parser(prog, purpose, examples, _ENVIRONMENT if has_stages else "")
    result.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="configuration, TOML; may be given many times, later files taking precedence",
    )
    result.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change one setting, such as train.epochs=3; may be given many times",
    )
    if has_stages:
        result.add_argument(
            "--force", action="store_true", help="do every stage again, though nothing changed"
        )
    return result


def load_config(paths: Sequence[str], overrides: Sequence[str]) -> JobConfig:
    """The configuration in ``paths``, later ones taking precedence, changed by ``overrides``.

    Raises:
        ConfigError: if it cannot be read or is invalid.
    """
    values = apply_overrides(read_configs(paths, JobConfig), overrides, keys(JobConfig))
    origin = ", ".join(paths) or "the command line"
    config = build(JobConfig, with_configurations(values, origin), origin)
    from ray_jobs.search.samplers import check_sampler
    from ray_jobs.search.schedulers import check_scheduler

    check_scheduler(config.tune.scheduler)
    check_sampler(config.tune.sampler)
    return config


def main(
    description: str,
    run: Run,
    arguments: Sequence[str] | None = None,
    add_options: Callable[[argparse.ArgumentParser], None] = lambda options: None,
    examples: Sequence[str] = _EXAMPLES,
    when_interrupted: str = _GOES_ON,
    *,
    has_stages: bool = True,
) -> int:
    """Parse, build, run: the body of every ``python -m ray_jobs.*``; returns the exit code.

    Args:
        description: its first paragraph is what the help says of the command.
        run: what the command does; the module it is defined in is the command.
        arguments: instead of those of the program.
        add_options: adds options of the command alone.
        examples: arguments that the help shows.
        when_interrupted: what is said after Ctrl-C.
        has_stages: whether it makes stages on a Ray that may be a cluster, and so takes --force.
    """
    options = parser(_prog(run), description.partition("\n\n")[0], examples, has_stages=has_stages)
    add_options(options)
    parsed = options.parse_args(arguments)
    log_to_console()
    try:
        run(load_config(parsed.config, parsed.overrides), parsed)
    except ConfigError as error:
        logger.error(str(error))
        return WRONG_USAGE
    except MovieRatingsError as error:
        logger.error(str(error))
        return FAILED
    except OSError as error:
        logger.error(f"{error.strerror or error}: {error.filename or 'no file named'}")
        return FAILED
    except KeyboardInterrupt:
        logger.error(when_interrupted)
        return INTERRUPTED
    except Exception as error:
        if not _is_from_ray(error):
            raise
        from ray_jobs.cluster.session import LOGS

        reason = str(error).strip().splitlines()[-1]
        logger.error(f"Ray failed: {reason}. Its logs are in {LOGS}.")
        return FAILED
    return DONE


def _is_from_ray(error: Exception) -> bool:
    """Whether Ray raised it; a program that has not loaded Ray need not load it to tell."""
    if "ray" not in sys.modules:
        return False
    from ray.exceptions import RayError
    from ray.tune import TuneError

    return isinstance(error, RayError | TuneError)


def _prog(run: Run) -> str:
    """How the command is called."""
    module = run.__module__
    if module == "__main__" and (spec := sys.modules[module].__spec__):
        module = spec.name.removesuffix(".__main__")
    return f"python -m {module}"
