"""Where a job's files are, and which stages are already done."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import tomli_w

from foundation.console import heading, say
from foundation.storage import Storage
from ray_jobs.config import JobConfig

STAGE_VERSION: Final = 1
"""Raised when a stage's code changes what it makes of the same inputs."""


def runs_as_ray_job() -> bool:
    """Whether ``ray job submit`` started this program."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def fingerprint(*parts: Any) -> str:
    """SHA-256 over the canonical JSON of ``parts``."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Workspace:
    """A configuration and the folders that belong to it::

    storage/raw/<data set>/
    storage/prepared/<hash>/
    storage/runs/<name>/
    storage/recommendations/<name>/
    """

    config: JobConfig
    force: bool = False
    """Do every stage again."""

    @cached_property
    def storage(self) -> Storage:
        """Root of all outputs; a relative folder lies in the home folder when this is a Ray job,
        because the working folder of a job is temporary.
        """
        if runs_as_ray_job() and "://" not in self.config.storage:
            return Storage.at(Path.home() / Path(self.config.storage).expanduser())
        return Storage.at(self.config.storage)

    @property
    def run(self) -> Storage:
        """Results of this run."""
        return self.storage / "runs" / self.config.name

    @property
    def recommendations(self) -> Storage:
        """Recommendations made by this run's model."""
        return self.storage / "recommendations" / self.config.name

    def prepared(self, key: str) -> Storage:
        """Prepared data with this fingerprint."""
        return self.storage / "prepared" / key[:16]

    def open(self) -> None:
        """Make the run's folder and set down the configuration, failing early if that cannot be.

        Raises:
            StorageError: if the place is not writable.
        """
        self.run.make_folder()
        say(f"outputs: {self.storage}")
        values = self.config.model_dump(mode="json", exclude_none=True)
        (self.run / "config.toml").write_text(tomli_w.dumps(values))

    def stage(
        self,
        name: str,
        key: str,
        outputs: Iterable[Storage],
        work: Callable[[], None],
    ) -> None:
        """Do ``work`` unless it was done for the same ``key`` and all ``outputs`` are there.

        The record that it was done is written last, so an interrupted stage is done again.
        """
        record = self.run / ".stages" / f"{name}.json"
        if not self.force and _done(record, key) and all(o.exists() for o in outputs):
            say(f"── {name}: unchanged since it was last done, skipped")
            return
        record.delete()
        started = time.monotonic()
        with heading(name):
            work()
        record.write_json({"key": key, "seconds": round(time.monotonic() - started, 3)})

    def took(self, name: str, key: str, seconds: float) -> None:
        """Record how long was worked for ``key`` in a stage that knows by itself what is done.

        An earlier record for the same key stays: then there was little left to do.
        """
        record = self.run / ".stages" / f"{name}.json"
        if not _done(record, key):
            record.write_json({"key": key, "seconds": round(seconds, 3)})

    def seconds(self, name: str) -> float | None:
        """How long a stage took when it was last done in this run; None if that is not known."""
        record = self.run / ".stages" / f"{name}.json"
        return record.read_json()["seconds"] if record.exists() else None


def _done(record: Storage, key: str) -> bool:
    return record.exists() and record.read_json().get("key") == key
