"""The study of a search as an Optuna journal, which ``optuna-dashboard`` and other tools read.

It follows from the records: a search writes it anew when it starts, and adds to it while it runs.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search.optuna import OptunaSearch

from foundation.errors import StorageError
from foundation.storage import Storage
from ray_jobs.config import Dimension
from ray_jobs.search.schedulers import EPOCH
from ray_jobs.search.space import domains, encoded
from ray_jobs.search.trials import TrialRecord, TrialRecords
from ray_jobs.training.telemetry import SearchMetric

STATES: Final = {
    "running": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
"""Of Optuna, by those of the records."""

logger: Final = logging.getLogger(__name__)


class StudyLog(Callback):
    """A study in a journal file, with a search's trials as Optuna would have run them.

    Args:
        file: of the journal; an earlier one is replaced.
        name: of the study.
        space: that is searched.
        records: those of the search.
    """

    def __init__(
        self, file: Path, name: str, space: Mapping[str, Dimension], records: TrialRecords
    ) -> None:
        self._file = file
        self._records = records
        self._distributions = OptunaSearch.convert_search_space(domains(space))
        self._ids: dict[int, int] = {}
        """Optuna's ids of the trials that it has been told of, by their numbers."""
        self._storage: JournalStorage | None = None
        with _not_essential(file):
            self._begin(name, records.metric)
            for record in records.ended():
                self._add(record)

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune stores its callbacks; an open file cannot be."""
        return self.__dict__ | {"_storage": None}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver."""
        record = self._records.of(trial.trial_id)
        if record.number not in self._ids:
            with _not_essential(self._file):
                self._add(record)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Called by Ray Tune in the driver."""
        record = self._records.of(trial.trial_id)
        if self._storage and record.number in self._ids:
            value = float(result[record.metric.key])
            with _not_essential(self._file):
                self._storage.set_trial_intermediate_value(
                    self._ids[record.number], result[EPOCH], value
                )

    def ended(self, record: TrialRecord) -> None:
        """Note the end of a trial."""
        if self._storage and record.number in self._ids:
            trial_id, values = self._ids[record.number], _values(record)
            with _not_essential(self._file):
                if record.error:
                    self._storage.set_trial_user_attr(trial_id, "error", record.error)
                self._storage.set_trial_state_values(trial_id, STATES[record.state], values)

    def _begin(self, name: str, metric: SearchMetric) -> None:
        self._file.unlink(missing_ok=True)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(self._file)))
        minimize = metric.mode == "min"
        direction = StudyDirection.MINIMIZE if minimize else StudyDirection.MAXIMIZE
        self._study = storage.create_new_study([direction], name)
        storage.set_study_user_attr(self._study, "metric", metric.key)
        self._storage = storage

    def _add(self, record: TrialRecord) -> None:
        if self._storage:
            trial = frozen_trial(
                STATES[record.state],
                _values(record),
                encoded(record.parameters),
                self._distributions,
                {int(each[EPOCH]): each[record.metric.key] for each in record.epochs},
                {"trial": record.number} | ({"error": record.error} if record.error else {}),
            )
            self._ids[record.number] = self._storage.create_new_trial(self._study, trial)


def frozen_trial(
    state: TrialState,
    values: list[float] | None,
    parameters: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    epochs: Mapping[int, float] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """A trial as Optuna knows it.

    Args:
        state: of it.
        values: its result, if there is one.
        parameters: scalars, of which those of ``distributions`` are taken.
        distributions: the space.
        epochs: values by epoch.
        attributes: of the user.
    """
    return create_trial(
        state=state,
        values=values,
        params={name: parameters[name] for name in distributions},
        distributions=dict(distributions),
        intermediate_values=dict(epochs or {}),
        user_attrs=dict(attributes or {}),
    )


def _values(record: TrialRecord) -> list[float] | None:
    return None if record.ended is None or record.result is None else [record.result]


@contextmanager
def _not_essential(file: Path) -> Iterator[None]:
    """No search ends because its study cannot be written."""
    try:
        yield
    except (OSError, StorageError, RuntimeError) as error:  # the last one of Optuna's lock
        logger.info("   note: the study could not be written to %s: %s", file, error)


@contextmanager
def study_log(
    target: Storage, name: str, space: Mapping[str, Dimension], records: TrialRecords
) -> Iterator[StudyLog]:
    """Keep the study in a file during a search; in an object store it is written at the end."""
    if target.is_local:
        yield StudyLog(Path(target.path), name, space, records)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / target.name
        try:
            yield StudyLog(file, name, space, records)
        finally:
            with _not_essential(file):
                target.write_bytes(file.read_bytes())
