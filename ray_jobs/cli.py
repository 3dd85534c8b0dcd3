"""What all jobs share: options, configuration, and exceptions turned into exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click

from foundation.cli import DONE, FAILED, INTERRUPTED, WRONG_USAGE, Command, config_options
from foundation.config import apply_overrides, build, keys, read_configs
from foundation.console import log_to_console
from foundation.errors import ConfigError, MovieRatingsError
from ingest.options import columns_option, quiet_option
from ray_jobs.config import JobConfig, TuneConfig
from ray_jobs.configurations import with_configurations
from ray_jobs.redo import Redo

logger = logging.getLogger(__name__)

_EXAMPLES: Final = (
    "--config configs/protocols/losses.toml",
    "--config configs/quickstart.toml --set tune.num_trials=50",
)
_ENVIRONMENT: Final = """\
  RAY_ADDRESS         Ray cluster to join, unless ray.address names one
"""

_CONTINUES: Final = (
    "interrupted; the same command continues from the last finished stage, and in a search from "
    "the last finished trial"
)


def job(
    name: str,
    description: str | None,
    options: Iterable[click.Parameter] = (),
    examples: Sequence[str] = _EXAMPLES,
    when_interrupted: str = _CONTINUES,
    usage: str = "[options]",
    *,
    runs_stages: bool = True,
) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function.

    The function is called with the configuration, and with the command's options by their names.

    Args:
        name: of the command.
        description: its first paragraph is what the help says of the command.
        options: those of the command alone.
        examples: arguments that the help shows.
        when_interrupted: what is said after Ctrl-C.
        usage: what follows the name of the command in its usage line.
        runs_stages: whether it runs stages on a Ray that may be a cluster, and so takes --force
            and --retry-failed.
    """
    params = [
        *config_options(lambda: JobConfig, "train.epochs=3"),
        columns_option(),
        quiet_option(),
    ]
    if runs_stages:
        params += _redo_options()

    def decorate(function: Callable[..., None]) -> Command:
        def callback(
            config_files: Sequence[str],
            overrides: Sequence[str],
            columns: Sequence[str],
            quiet: bool,
            **others: Any,
        ) -> int:
            if runs_stages:
                others["redo"] = Redo(*map(others.pop, ("force", "retry_failed", "replace")))

            def work() -> None:
                function(load_config(config_files, (*overrides, *columns)), **others)

            return _exit_code(work, when_interrupted, quiet=quiet)

        return Command(
            name,
            (description or "").partition("\n\n")[0],
            examples=examples,
            environment=_ENVIRONMENT if runs_stages else "",
            params=[*params, *options],
            callback=callback,
            options_metavar=usage,
        )

    return decorate


def splits_option(help: str) -> click.Option:
    """``--splits``, for ``with_splits``."""
    return click.Option(["--splits"], type=click.IntRange(2, 100), metavar="NUMBER", help=help)


def with_splits(config: JobConfig, number: int) -> JobConfig:
    """The configuration with so many split seeds.

    Raises:
        ConfigError: if the split does not depend on a seed.
    """
    if config.split.kind != "random":
        raise ConfigError(
            f'--splits draws random splits, but split.kind = "{config.split.kind}" gives the same '
            "one with every seed: leave one of them out"
        )
    seeds = tuple(config.split.seed + i for i in range(number))
    section = type(config.cross_validate)(split_seeds=seeds)
    return config.model_copy(update={"cross_validate": section})


def _redo_options() -> list[click.Option]:
    return [
        click.Option(
            ["--force"], is_flag=True, help="run every stage again, even if nothing changed"
        ),
        click.Option(
            ["--retry-failed"], is_flag=True, help="make the failed trials of searches again"
        ),
        click.Option(
            ["--replace"],
            is_flag=True,
            help="replace results of another data set that the run of this name has",
        ),
    ]


def load_config(paths: Sequence[str], overrides: Sequence[str]) -> JobConfig:
    """The configuration in ``paths``, later ones taking precedence, changed by ``overrides``.

    Raises:
        ConfigError: if it cannot be read or is invalid.
    """
    values = apply_overrides(read_configs(paths, JobConfig), overrides, keys(JobConfig))
    origin = ", ".join(paths) or "the command line"
    config = build(JobConfig, with_configurations(values, origin, overrides), origin)
    # Not those by default: importing Ray Tune and Optuna takes seconds, which queries do not need.
    default = TuneConfig()
    if config.tune.scheduler != default.scheduler:
        from ray_jobs.search.schedulers import check_scheduler

        check_scheduler(config.tune.scheduler)
    if config.tune.sampler != default.sampler:
        from ray_jobs.search.samplers import check_sampler

        check_sampler(config.tune.sampler)
    return config


def _exit_code(work: Callable[[], None], when_interrupted: str, *, quiet: bool) -> int:
    """Do the work of a job and print what it raises; returns the exit code."""
    log_to_console(level=logging.WARNING if quiet else logging.INFO)
    try:
        work()
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
    """Whether Ray raised it. Does not load Ray: what is not loaded has raised nothing."""
    if "ray" not in sys.modules:
        return False
    from ray.exceptions import RayError
    from ray.tune import TuneError

    return isinstance(error, RayError | TuneError)
