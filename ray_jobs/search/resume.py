"""Wrappers of Ray Tune's schedulers and samplers that continue a search from its records.

A continued search knows what the search before it did: the sampler is asked and told again all that
it was asked and told, in the same order, and the scheduler sees every epoch of the trials that have
ended. With one trial at a time the further trials are therefore those of a search that was never
interrupted. With several at a time they may differ, as suggestions depend on which trials end
first; and until an interrupted trial has been trained again, the scheduler lacks its epochs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from optuna.samplers import BaseSampler
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from ray_jobs.config import Dimension
from ray_jobs.errors import TrainingError
from ray_jobs.search.schedulers import EPOCH
from ray_jobs.search.space import decoded, domains, encoded
from ray_jobs.search.trials import TrialRecord, TrialRecords
from ray_jobs.training.telemetry import SearchMetric

_NO_RESULT: Final = "it reported no result"


_RAISED_HERE: Final = f"{TrainingError.__module__}.{TrainingError.__name__}: "


def optuna_search(
    space: Mapping[str, Dimension],
    sampler: BaseSampler,
    metric: SearchMetric,
    first: Mapping[str, Any] | None = None,
) -> OptunaSearch:
    """Ray Tune's interface to one of Optuna's samplers, which suggests ``first`` first."""
    return OptunaSearch(
        OptunaSearch.convert_search_space(domains(space)),
        metric=metric.key,
        mode=metric.mode,
        points_to_evaluate=[encoded(first)] if first else None,
        sampler=sampler,
    )


class ResumableSampler(Searcher):
    """Suggests the interrupted trials again, then what ``inner`` suggests.

    Args:
        inner: a new search by any of Optuna's samplers; it names trials by their numbers.
        space: that it searches.
        records: those of this search, to which this adds each trial that it suggests.
        count: how many trials the search is to have.
        num_ready: how many trials find workers now; no more of them are suggested, so that none
            runs that waits for workers.
    """

    def __init__(
        self,
        inner: OptunaSearch,
        space: Mapping[str, Dimension],
        records: TrialRecords,
        count: int,
        num_ready: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        super().__init__(inner.metric, inner.mode)
        self._num_ready = num_ready
        self._running: set[str] = set()
        self._inner = inner
        self._space = space
        self._records = records
        self._missing = records.missing(count)
        for record, ended in records.events():
            if ended:
                self._tell(record, record.result)
            else:
                self._inner.suggest(str(record.number))

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Called by Ray Tune before each trial; None if there are no workers for it yet."""
        if len(self._running) >= self._num_ready():
            return None
        self._running.add(trial_id)
        number = self._missing.pop(0)
        if number in self._records:
            parameters = self._records[number].parameters
        else:
            parameters = self._ask(str(number))
        self._records.start(number, trial_id, parameters)
        return parameters

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Called by Ray Tune after each epoch; the sampler learns only from how trials end."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Called by Ray Tune, also for a trial that was stopped."""
        self._running.discard(trial_id)
        found = None if error else (result or {}).get(self._inner.metric)
        is_number = found is not None and math.isfinite(found)
        self._tell(self._records.of(trial_id), found if is_number else None)

    def save(self, checkpoint_path: str) -> None:
        """Called by Ray Tune now and then."""
        self._inner.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """The inverse of ``save``."""
        self._inner.restore(checkpoint_path)

    def _ask(self, number: str) -> dict[str, Any]:
        """What the sampler suggests for a trial; asked again, it repeats it."""
        return decoded(self._space, self._inner.suggest(number) or {})

    def _tell(self, record: TrialRecord, result: float | None) -> None:
        """Tell the sampler how a trial has ended that it was asked for."""
        asked = str(record.number)
        # Another processor or release of Optuna may have suggested something else; what was trained
        # is what counts.
        is_what_was_trained = self._ask(asked) == record.parameters
        if result is not None and is_what_was_trained:
            self._inner.on_trial_complete(asked, {self._inner.metric: result})
            return
        self._inner.on_trial_complete(asked, error=True)
        if result is not None:
            self._inner.add_evaluated_point(encoded(record.parameters), result)


@dataclass(frozen=True, eq=False)  # schedulers tell trials apart by identity
class _EndedTrial:
    """Stands in for Ray Tune's ``Trial`` where a scheduler sees a trial of the past."""

    trial_id: str


class ResumableScheduler(TrialScheduler):
    """Shows a scheduler the epochs of earlier trials, and remembers which trials it stops.

    Args:
        inner: any of Ray Tune's schedulers that does not pause trials; a new one.
        records: those of this search.
    """

    def __init__(self, inner: TrialScheduler, records: TrialRecords) -> None:
        super().__init__()
        self._inner = inner
        self._stopped: set[str] = set()
        self._newest: dict[str, int] = {}
        """The number of each running trial's newest epoch."""
        for record in records.ended():
            self._replay(record)

    def has_stopped(self, trial: Trial) -> bool:
        """Whether the scheduler has ended the trial."""
        return trial.trial_id in self._stopped

    def _replay(self, record: TrialRecord) -> None:
        trial = cast(Trial, _EndedTrial(record.trial_id))
        self._inner.on_trial_add(None, trial)
        for epoch in record.epochs:
            self._inner.on_trial_result(None, trial, epoch)
        # As Ray Tune does: it notifies the scheduler of trials that ended by themselves only.
        if record.state == "finished":
            self._inner.on_trial_complete(None, trial, record.epochs[-1])
        else:
            self._inner.on_trial_remove(None, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Called by Ray Tune after each epoch."""
        # A trial that lost its workers, and has no state to continue from, repeats its epochs.
        if result[EPOCH] <= self._newest.get(trial.trial_id, 0):
            return TrialScheduler.CONTINUE
        self._newest[trial.trial_id] = result[EPOCH]
        decision = self._inner.on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP:
            self._stopped.add(trial.trial_id)
        return decision

    # The rest is the inner scheduler's.

    @property
    def metric(self) -> str | None:
        """Name of the reported value that it compares."""
        return self._inner.metric

    @property
    def supports_buffered_results(self) -> bool:
        """Whether it may get several epochs at once."""
        return self._inner.supports_buffered_results

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Called by Ray Tune with its own metric, of which there is none here."""
        return self._inner.set_search_properties(metric, mode, **spec)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Called by Ray Tune before a trial starts."""
        self._inner.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Called by Ray Tune when a trial has failed."""
        self._inner.on_trial_error(tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Called by Ray Tune when a trial has ended by itself."""
        self._inner.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Called by Ray Tune when a trial ends that does not run."""
        self._inner.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Called by Ray Tune when there is room for a trial."""
        return self._inner.choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """Called by Ray Tune for its own progress messages."""
        return self._inner.debug_string()

    def save(self, checkpoint_path: str) -> None:
        """Called by Ray Tune where it stores a search's state."""
        self._inner.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """The inverse of ``save``."""
        self._inner.restore(checkpoint_path)


class Recorder(Callback):
    """Records how each trial ends.

    Args:
        records: those of this search.
        scheduler: what stops trials.
        on_end: called with the record of each trial that ends.
        on_loss: called with a trial that was trained again, and why it lost its workers.
    """

    def __init__(
        self,
        records: TrialRecords,
        scheduler: ResumableScheduler,
        on_end: Callable[[TrialRecord], None],
        on_loss: Callable[[TrialRecord, str], None] = lambda record, reason: None,
    ) -> None:
        self._records = records
        self._metric = records.metric.key
        self._scheduler = scheduler
        self._on_end = on_end
        self._on_loss = on_loss
        self._epochs: dict[str, list[dict[str, float]]] = {}
        self._seconds: dict[str, float] = {}

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Called by Ray Tune in the driver."""
        epoch = {key: result[key] for key in (EPOCH, self._metric)}
        if "seconds" in result:
            so_far = self._seconds.get(trial.trial_id, 0.0)
            self._seconds[trial.trial_id] = so_far + result["seconds"]
        epochs = self._epochs.setdefault(trial.trial_id, [])
        if not epochs or epoch[EPOCH] > epochs[-1][EPOCH]:  # repeated after a loss of workers
            epochs.append(epoch)
        if "lost" in result:
            self._on_loss(self._records.of(trial.trial_id), result["lost"])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver, also for a trial that was stopped."""
        result = trial.last_result or {}
        if not math.isfinite(result.get(self._metric, math.nan)):
            self._end(trial, "failed", _NO_RESULT)
        elif self._scheduler.has_stopped(trial) and result[EPOCH] < result["max_epochs"]:
            self._end(trial, "stopped")
        else:
            self._end(trial, "finished")

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver."""
        self._end(trial, "failed", _reason(trial))

    def _end(self, trial: Trial, state: str, error: str | None = None) -> None:
        result = trial.last_result or {}
        seconds, total = self._seconds.pop(trial.trial_id, None), result.get("time_total_s")
        record = self._records.end(
            trial.trial_id,
            state=state,
            error=error,
            epochs=tuple(self._epochs.pop(trial.trial_id, ())),
            best_epoch=result.get("best_epoch"),
            seconds=seconds,
            waited=max(0.0, total - seconds) if total is not None and seconds is not None else None,
            losses=result.get("losses", 0),
        )
        self._on_end(record)


def _reason(trial: Trial) -> str:
    """Why a trial failed, without the traceback."""
    text = Path(trial.error_file).read_text(encoding="utf-8")
    return text.strip().splitlines()[-1].removeprefix(_RAISED_HERE)
