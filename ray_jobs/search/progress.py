"""What a search says of its trials: a line for each that ends, and, if wanted, a live table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.table import Table

from foundation.console import live, say
from ray_jobs.search.trials import TrialRecord, TrialRecords
from ray_jobs.training.telemetry import METRIC


class TrialProgress:
    """Says a line for each trial that ends.

    Args:
        earlier: records of the trials that have ended before.
        num_trials: that the search shall have.
    """

    def __init__(self, earlier: list[TrialRecord], num_trials: int) -> None:
        self._num_trials = num_trials
        self._ended = len(earlier)
        self._best = min((r.result for r in earlier if r.result is not None), default=math.inf)

    def ended(self, record: TrialRecord) -> None:
        """Say it of one more."""
        self._ended += 1
        outcome = f"failed: {record.error}"
        if record.result is not None:
            self._best = min(self._best, record.result)
            outcome = (
                f"RMSE {record.result:.4f} after {len(record.epochs)} epochs"
                f" (best so far {self._best:.4f})"
            )
        say(f"   trial {self._ended}/{self._num_trials}: {outcome}  {_values(record)}")


@contextmanager
def trial_table(records: TrialRecords, *, wanted: bool) -> Iterator[tuple[Callback, ...]]:
    """If ``wanted``, what Ray Tune calls to show the trials that run, for this block."""
    if not wanted:
        yield ()
        return
    with live() as show:
        yield (RunningTrials(records, show),)


class RunningTrials(Callback):
    """Shows a table of the trials that run whenever one of them has done something.

    Args:
        records: those of this search.
        show: takes each new state of the table.
    """

    def __init__(self, records: TrialRecords, show: Callable[[Table], None]) -> None:
        self._records = records
        self._show = show
        self._newest: dict[str, dict[str, Any]] = {}
        """Of each trial that runs, by Ray Tune's name of it, its newest epoch."""

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver."""
        self._newest[trial.trial_id] = {}
        self._tell()

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Called by Ray Tune in the driver."""
        self._newest[trial.trial_id] = result
        self._tell()

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver, also for a trial that was stopped."""
        self._newest.pop(trial.trial_id, None)
        self._tell()

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver."""
        self._newest.pop(trial.trial_id, None)
        self._tell()

    def _tell(self) -> None:
        table = Table("trial", "epoch", "RMSE", "best", "seconds", "settings")
        for trial_id, epoch in self._newest.items():
            record = self._records.of(trial_id)
            figures = ("", "", "", "")
            if epoch:
                figures = (
                    f"{epoch['epoch']}/{epoch['max_epochs']}",
                    f"{epoch['validation_rmse']:.4f}",
                    f"{epoch[METRIC]:.4f}",
                    f"{epoch['time_total_s']:.0f}",
                )
            table.add_row(str(record.number), *figures, _values(record))
        self._show(table)


def _values(record: TrialRecord) -> str:
    """A trial's parameters, by their short names."""
    return ", ".join(
        f"{key.split('.')[-1]}={value:.3g}"
        if isinstance(value, float)
        else f"{key.split('.')[-1]}={value}"
        for key, value in record.parameters.items()
    )
