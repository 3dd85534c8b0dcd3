"""Where a job's files are, and which of its stages are done."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import tomli_w

from foundation.console import heading
from foundation.errors import ConfigError
from foundation.storage import Storage
from ingest.registry import AUTO
from ingest.sources.selection import name_of
from ray_jobs.config import JobConfig
from ray_jobs.redo import Redo
from ray_jobs.results.paths import RECOMMENDATIONS, RunPaths
from ray_jobs.results.stage import Inputs, Stage

logger = logging.getLogger(__name__)


def runs_as_ray_job() -> bool:
    """Whether ``ray job submit`` started this program."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@dataclass(frozen=True)
class Workspace:
    """A configuration and the folders that belong to it::

    storage/raw/<data set>/
    storage/prepared/<hash>/
    storage/runs/<name>/
    storage/recommendations/<name>/
    """

    config: JobConfig
    redo: Redo = field(default_factory=Redo)
    """What is done again."""

    @property
    def force(self) -> bool:
        """Run every stage, even if it is up to date."""
        return self.redo.all_stages

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
    def paths(self) -> RunPaths:
        """Names of the files in ``run``."""
        return RunPaths(self.run)

    @property
    def recommendations(self) -> Storage:
        """Folder of Parquet files: what the final model recommends to every user."""
        return self.storage / "recommendations" / self.config.name / RECOMMENDATIONS

    def prepared(self, key: str) -> Storage:
        """Prepared data with this fingerprint."""
        return self.storage / "prepared" / key[:16]

    def open(self) -> None:
        """Make the run's folder and write the configuration into it.

        An unwritable place fails here, before any stage has run.

        Raises:
            StorageError: if the place is not writable.
            ConfigError: as ``refuse_other_data``.
        """
        data = self.config.data
        if data.source != AUTO or data.path:  # else it is known once the network was asked
            self.refuse_other_data(name_of(data))
        self.run.make_folder()
        logger.info(f"outputs: {self.storage}")
        if not self.paths.config.exists():
            self._write_config()

    def use_data(self, name: str) -> None:
        """Record that the run is of the data set of this name, and its configuration.

        Raises:
            ConfigError: as ``refuse_other_data``.
        """
        self.refuse_other_data(name)
        self.paths.data.write_json({"dataset": name})
        self._write_config()

    def _write_config(self) -> None:
        values = self.config.model_dump(mode="json", exclude_none=True)
        self.paths.config.write_text(tomli_w.dumps(values))

    def refuse_other_data(self, name: str) -> None:
        """Refuse to replace results of another data set than the one of this name; ``--replace``
        allows it.

        Raises:
            ConfigError: naming both.
        """
        if self.redo.other_data:
            return
        for metrics in (self.paths.data, self.paths.metrics, self.paths.choice_metrics):
            values = metrics.read_json() if metrics.exists() else {}
            found = values.get("dataset", name) if isinstance(values, dict) else name
            if found != name:
                raise ConfigError(
                    f"the run {self.config.name!r} has results of {found}, which this job would "
                    f"replace by those of {name}. Choose another name (--set name=...), name the "
                    "data of the run (--set data.path=... or data.source=...), or add --replace"
                )

    def update(self, stage: Stage[Inputs]) -> None:
        """Run a stage unless it was run for the same inputs and all its outputs exist.

        The record that it was run is written last, so an interrupted stage is run again.
        """
        record = self.paths.stage(stage.name)
        if not self.force and _done(record, stage.key) and all(o.exists() for o in stage.outputs):
            logger.info(f"── {stage.name}: unchanged since it was last done, skipped")
            return
        record.delete()
        started = time.monotonic()
        with heading(stage.name):
            stage.run()
        record.write_json({"key": stage.key, "seconds": round(time.monotonic() - started, 3)})

    def took(self, name: str, key: str, seconds: float) -> None:
        """Record the seconds of a stage that decides by itself whether there is work to do.

        An earlier record for the same key stays, since the stage then had little left to do.
        """
        record = self.paths.stage(name)
        if self.force or not _done(record, key):
            record.write_json({"key": key, "seconds": round(seconds, 3)})

    def seconds(self, name: str) -> float | None:
        """How long a stage took when it was last done in this run; None if that is not known."""
        found = _record(self.paths.stage(name))
        return found.seconds if found else None


@dataclass(frozen=True)
class _StageRecord:
    """That a stage was done."""

    key: str
    seconds: float


def _record(file: Storage) -> _StageRecord | None:
    """The record of a stage, if it was done.

    Raises:
        StorageError: if it is damaged or of another version.
    """
    return file.read_as(_StageRecord, "run the stage again with --force") if file.exists() else None


def _done(record: Storage, key: str) -> bool:
    found = _record(record)
    return found is not None and found.key == key
