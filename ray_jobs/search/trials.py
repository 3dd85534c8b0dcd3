"""Records of a search's trials, from which the same search goes on after it was killed.

One JSON file for each trial, written whole when the trial starts and again when it has ended. So a
search may be killed at any moment: what has ended is kept, and what was running is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from foundation.storage import PART_SUFFIX, Storage
from ray_jobs.results.undefined import Metric
from ray_jobs.training.telemetry import SEARCH_METRICS, SearchMetric, search_metric

State = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """What is known about one trial."""

    number: int
    """Counted from 1, in the order in which the sampler suggested the trials."""
    trial_id: str
    """Ray Tune's name for it; for the last attempt at it, if it was interrupted."""
    parameters: dict[str, Any]
    """What the sampler suggested, by the keys of the space."""
    started: int
    """Position of its first start among the starts and ends of all trials."""
    ended: int | None = None
    """The same of its end; None while it runs, and if it was interrupted."""
    state: State = "running"
    """``finished``: trained to its end; ``stopped``: earlier, by the scheduler; ``failed``: with an
    error."""
    error: str | None = None
    """Why it failed."""
    epochs: tuple[dict[str, int | Metric], ...] = ()
    """Number and ``metric.key`` of every epoch that it reported."""
    best_epoch: int | None = None
    """The epoch that the result is from: the one with the lowest validation RMSE."""
    seconds: float | None = None
    """Wall time of its epochs, with validation; also of those that were trained again."""
    waited: float | None = None
    """The other seconds from its start to its last epoch: for workers and data."""
    losses: int = 0
    """How often it lost its workers and was trained again."""
    metric_name: str = "rmse"
    """As in ``tune.metric``."""

    @property
    def metric(self) -> SearchMetric:
        """By which it is compared."""
        return search_metric(self.metric_name)

    @property
    def result(self) -> float | None:
        """The metric after its last epoch; None if it failed."""
        return None if self.state == "failed" else self.epochs[-1][self.metric.key]

    @property
    def cost(self) -> float:
        """The result on a scale on which lower is better; infinite if it failed or is undefined."""
        if self.result is None or math.isnan(self.result):
            return math.inf
        return self.metric.cost(self.result)


class TrialRecords:
    """The records of one search, in a folder of its own.

    Args:
        folder: where they are.
        metric: by which the search compares trials.
    """

    def __init__(self, folder: Storage, metric: SearchMetric = SEARCH_METRICS["rmse"]) -> None:
        self._folder = folder
        self.metric = metric
        for partial in folder.list_files(PART_SUFFIX):
            partial.delete()
        found = (_read(file) for file in folder.list_files(".json"))
        self._records = {record.number: record for record in found}
        positions = (max(r.started, r.ended or 0) for r in self._records.values())
        self._newest_event = max(positions, default=0)
        self._numbers = {r.trial_id: r.number for r in self._records.values()}

    @property
    def models_folder(self) -> Storage:
        """Where weights of its trials are kept."""
        return self._folder / "models"

    def __getitem__(self, number: int) -> TrialRecord:
        return self._records[number]

    def __contains__(self, number: int) -> bool:
        return number in self._records

    def of(self, trial_id: str) -> TrialRecord:
        """The record of the trial that Ray Tune calls so."""
        return self._records[self._numbers[trial_id]]

    def events(self) -> Iterator[tuple[TrialRecord, bool]]:
        """Every start and every end (True) of a trial, in the order in which they happened."""
        records = self._records.values()
        starts = [(record.started, record, False) for record in records]
        ends = [(record.ended, record, True) for record in records if record.ended is not None]
        for _, record, ended in sorted(starts + ends, key=lambda event: event[0]):
            yield record, ended

    def ended(self, count: int | None = None) -> list[TrialRecord]:
        """Those of the first ``count`` trials, or of all, that have ended, by number."""
        found = (self._records[number] for number in sorted(self._records))
        return [r for r in found if r.ended is not None and (count is None or r.number <= count)]

    def missing(self, count: int) -> list[int]:
        """Which of the first ``count`` trials have not ended: interrupted and new ones."""
        done = {record.number for record in self.ended()}
        return [number for number in range(1, count + 1) if number not in done]

    def start(self, number: int, trial_id: str, parameters: dict[str, Any]) -> None:
        """Record that a trial starts, for the first time or again."""
        earlier = self._records.get(number)
        if earlier:
            self._write(replace(earlier, trial_id=trial_id))
        else:
            started = self._next_event()
            record = TrialRecord(
                number, trial_id, parameters, started=started, metric_name=self.metric.name
            )
            self._write(record)

    def end(self, trial_id: str, **outcome: Any) -> TrialRecord:
        """Record that a trial has ended; returns its record, with this outcome."""
        record = replace(self.of(trial_id), ended=self._next_event(), **outcome)
        self._write(record)
        return record

    def reopen_failed(self) -> int:
        """Let the trials that failed be made again, with the same parameters; returns how many."""
        failed = [record for record in self._records.values() if record.state == "failed"]
        for record in failed:
            self._write(
                TrialRecord(
                    record.number,
                    record.trial_id,
                    record.parameters,
                    record.started,
                    metric_name=record.metric_name,
                )
            )
        return len(failed)

    def delete(self) -> None:
        """Forget all trials."""
        self._folder.delete()
        self._records, self._numbers, self._newest_event = {}, {}, 0

    def _next_event(self) -> int:
        self._newest_event += 1
        return self._newest_event

    def _write(self, record: TrialRecord) -> None:
        (self._folder / f"{record.number:05d}.json").write_json(asdict(record))
        self._records[record.number] = record
        self._numbers[record.trial_id] = record.number


def _read(file: Storage) -> TrialRecord:
    """A record of this version.

    Raises:
        StorageError: if it is damaged or of another version.
    """
    return file.read_as(TrialRecord, "start the search again with --force")
