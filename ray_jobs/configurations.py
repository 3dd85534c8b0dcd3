"""Read the fixed configurations of a comparison, ``[compare.configurations]``.

Each is a table that may extend configuration files. Here it becomes one with all settings that the
files and the table give, so that nothing but the job's configuration needs to be read later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from foundation.config import base_files, build, merge, read_configs
from foundation.errors import ConfigError, shortened
from ray_jobs.config import ComparedConfig, JobConfig

COMMON: Final = ("data", "tmdb", "split")
"""Sections that all models of a comparison share: they decide which rows are scored."""

OWN: Final = tuple(ComparedConfig.model_fields)
"""Sections that each configuration may have."""


def with_configurations(
    values: Mapping[str, Any], origin: str, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """The values of a job's configuration, those of ``compare.configurations`` completed.

    Args:
        values: as read from files and changed on the command line, not validated.
        origin: where they are from, for messages.
        overrides: the changes of the command line. They hold for all configurations, so a file may
            set data, tmdb and split otherwise than they do.

    Raises:
        ConfigError: if a file of a configuration is missing or invalid, a file sets data, tmdb or
            split otherwise than the files of the job do, or a table has other sections than
            ``OWN``.
    """
    compare = values.get("compare")
    tables = compare.get("configurations") if isinstance(compare, Mapping) else None
    if not tables or not isinstance(tables, Mapping):
        return dict(values)
    assert isinstance(compare, Mapping)
    others = {key: value for key, value in compare.items() if key != "configurations"}
    main = {**values, "compare": others}
    job = build(JobConfig, main, origin)
    changed = tuple(override.partition("=")[0].strip() for override in overrides)
    completed = {
        name: _completed(name, table, main, job, changed) for name, table in tables.items()
    }
    return {**main, "compare": {**others, "configurations": completed}}


def _completed(
    name: str, table: Any, main: Mapping[str, Any], job: JobConfig, changed: Sequence[str]
) -> dict[str, Any]:
    """The values of one configuration, for ``ComparedConfig``."""
    where = f"compare.configurations.{name}"
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"{where} = {shortened(repr(table))}, expected a table with extends, or sections, or "
            f'both: "{name}" = {{ extends = "FILE.toml", train.epochs = 4 }}'
        )
    own = {key: value for key, value in table.items() if key != "extends"}
    for section in own.keys() - set(OWN):
        raise ConfigError(
            f"{where}.{section}: a configuration of a comparison may set {', '.join(OWN)}. All "
            "others are those of the comparison: set them outside of compare.configurations"
        )
    files = base_files(table.get("extends", []), Path(), where)
    inherited = read_configs(files, JobConfig)
    _refuse_other_rows(where, files, inherited, job, changed)
    base = {section: inherited.get(section, main.get(section, {})) for section in OWN}
    return merge(base, own, ComparedConfig)


def _refuse_other_rows(
    where: str,
    files: Sequence[Path],
    inherited: Mapping[str, Any],
    job: JobConfig,
    changed: Sequence[str],
) -> None:
    """Refuse files that are invalid, or set ``COMMON`` sections otherwise than the job.

    Keys that the command line has ``changed`` for the whole job may differ.
    """
    origin = ", ".join(map(str, files))
    theirs = build(JobConfig, inherited, origin)
    for section in COMMON:
        for key in inherited.get(section, {}):
            if any(f"{change}.".startswith(f"{section}.{key}.") for change in changed):
                continue
            found, expected = (getattr(getattr(c, section), key) for c in (theirs, job))
            if found != expected:
                raise ConfigError(
                    f"{where}: {origin} sets {section}.{key} = {found!r}, the comparison has "
                    f"{expected!r}. All models of a comparison are scored on the same rows: set "
                    f"{section}.{key} of the comparison, or leave this configuration out"
                )


def require_test_errors(config: JobConfig, reason: str) -> None:
    """Refuse ``compare.score_test = false`` for a command that scores test rows.

    Raises:
        ConfigError: with the reason.
    """
    if not config.compare.score_test:
        raise ConfigError(
            "compare.score_test = false reads no test row, but this command scores the test rows: "
            f"{reason}. Choose settings with movie-ratings compare, then run this command "
            "without compare.score_test = false"
        )
