"""The parts of Ray Tune that write a search's records, and that go on from those of before.

A search that is continued knows what the one before did: the sampler is asked and told again all
that it was asked and told, in the same order, and the scheduler is shown every epoch of the trials
that have ended. With one trial at a time the further trials are therefore those of a search that
was never interrupted. With several at a time they need not be, as suggestions depend on which
trials end first; and until an interrupted trial has been trained again, its epochs are missing in
ASHA's rungs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from optuna.samplers import TPESampler
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search.optuna import OptunaSearch

from ray_jobs.errors import TrainingError
from ray_jobs.search.schedulers import ResumableASHA
from ray_jobs.search.trials import TrialRecord, TrialRecords
from ray_jobs.training.telemetry import METRIC

_NO_RESULT: Final = "it reported no result"


_RAISED_HERE: Final = f"{TrainingError.__module__}.{TrainingError.__name__}: "


class ResumableSampler(OptunaSearch):
    """Optuna's TPE sampler; it first suggests the trials again that were interrupted.

    Args:
        space: Ray Tune's domains by the names of the parameters.
        seed: of the sampler.
        records: those of this search, to which this adds each trial that it suggests.
        count: how many trials the search shall have.
    """

    def __init__(
        self, space: Mapping[str, Any], seed: int, records: TrialRecords, count: int
    ) -> None:
        super().__init__(
            OptunaSearch.convert_search_space(space),
            metric=METRIC,
            mode="min",
            sampler=TPESampler(seed=seed),
        )
        self._records = records
        self._missing = records.missing(count)
        for record, ended in records.events():
            if ended:
                self._tell(record, record.result)
            else:
                super().suggest(str(record.number))

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Called by Ray Tune before each trial."""
        number = self._missing.pop(0)
        if number in self._records:
            parameters = self._records[number].parameters
        else:
            parameters = super().suggest(str(number))
        self._records.start(number, trial_id, parameters)
        return parameters

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Called by Ray Tune after each epoch; the sampler only looks at how trials end."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Called by Ray Tune, also for a trial that was stopped."""
        found = None if error else (result or {}).get(METRIC)
        is_number = found is not None and math.isfinite(found)
        self._tell(self._records.of(trial_id), found if is_number else None)

    def _tell(self, record: TrialRecord, result: float | None) -> None:
        """Tell the sampler how a trial has ended that it was asked for."""
        asked = str(record.number)
        # Asked for what it has suggested already, the sampler repeats it. Another processor or
        # release of Optuna may have come to something else; what was trained is what counts.
        is_what_was_trained = super().suggest(asked) == record.parameters
        if result is not None and is_what_was_trained:
            super().on_trial_complete(asked, {METRIC: result})
            return
        super().on_trial_complete(asked, error=True)
        if result is not None:
            self.add_evaluated_point(record.parameters, result)


class Recorder(Callback):
    """Records how each trial ends.

    Args:
        records: those of this search.
        scheduler: what stops trials.
        on_end: called with the record of each trial that ends.
    """

    def __init__(
        self,
        records: TrialRecords,
        scheduler: ResumableASHA,
        on_end: Callable[[TrialRecord], None],
    ) -> None:
        self._records = records
        self._scheduler = scheduler
        self._on_end = on_end
        self._epochs: dict[str, list[dict[str, float]]] = {}

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Called by Ray Tune in the driver."""
        epoch = {key: result[key] for key in ("epoch", METRIC)}
        self._epochs.setdefault(trial.trial_id, []).append(epoch)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver, also for a trial that was stopped."""
        result = trial.last_result or {}
        if not math.isfinite(result.get(METRIC, math.nan)):
            self._end(trial, "failed", _NO_RESULT)
        elif self._scheduler.has_stopped(trial) and result["epoch"] < result["max_epochs"]:
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
        record = self._records.end(
            trial.trial_id,
            state=state,
            error=error,
            epochs=tuple(self._epochs.pop(trial.trial_id, ())),
            best_epoch=result.get("best_epoch"),
            seconds=result.get("time_total_s"),
        )
        self._on_end(record)


def _reason(trial: Trial) -> str:
    """Why a trial failed, without the way that the error took."""
    text = Path(trial.error_file).read_text(encoding="utf-8")
    return text.strip().splitlines()[-1].removeprefix(_RAISED_HERE)
