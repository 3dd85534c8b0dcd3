"""Progress of a search: a line for each trial that ends, and, if wanted, a live table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.table import Table

from foundation.console import live, say
from ray_jobs.search.schedulers import EPOCH
from ray_jobs.search.trial_names import described
from ray_jobs.search.trials import TrialRecord, TrialRecords


class TrialProgress:
    """Prints a line for each trial that ends.

    Args:
        earlier: records of the trials that have ended before.
        num_trials: of the whole search.
    """

    def __init__(self, earlier: list[TrialRecord], num_trials: int) -> None:
        self._num_trials = num_trials
        self._ended = len(earlier)
        self._ended_well = [record for record in earlier if record.result is not None]

    def lost(self, record: TrialRecord, reason: str) -> None:
        """Print that a trial lost its workers, and is trained by others."""
        say(f"   trial {record.number} lost its workers and goes on with others: {reason}")

    def ended(self, record: TrialRecord) -> None:
        """Print the line of one more."""
        self._ended += 1
        outcome = f"failed: {record.error}"
        if record.result is not None:
            self._ended_well.append(record)
            best = min(self._ended_well, key=lambda record: record.cost)
            outcome = (
                f"{record.metric.title} {record.result:.4f} after {record.epochs[-1][EPOCH]} epochs"
                f" (best so far {best.result:.4f})"
            )
        count = f"{self._ended}/{self._num_trials}"
        settings = described(record.parameters)
        say(f"   trial {record.number} ({count} done): {outcome}  {settings}")


@contextmanager
def trial_table(records: TrialRecords, *, wanted: bool) -> Iterator[tuple[Callback, ...]]:
    """If ``wanted``, the callback that shows running trials in a table during this block."""
    if not wanted:
        yield ()
        return
    with live() as show:
        yield (RunningTrials(records, show),)


class RunningTrials(Callback):
    """Updates a table of the running trials after each of their events.

    Args:
        records: those of this search.
        show: takes each new state of the table.
    """

    def __init__(self, records: TrialRecords, show: Callable[[Table], None]) -> None:
        self._records = records
        self._show = show
        self._newest: dict[str, dict[str, Any]] = {}
        """The newest epoch of each running trial, by Ray Tune's name of the trial."""

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver."""
        self._newest[trial.trial_id] = {}
        self._update()

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
        self._update()

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver, also for a trial that was stopped."""
        self._newest.pop(trial.trial_id, None)
        self._update()

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver."""
        self._newest.pop(trial.trial_id, None)
        self._update()

    def _update(self) -> None:
        metric = self._records.metric
        table = Table("trial", "epoch", metric.title, "best", "elapsed", "settings")
        for trial_id, epoch in self._newest.items():
            record = self._records.of(trial_id)
            figures = ("", "", "", "")
            if epoch:
                figures = (
                    f"{epoch['epoch']}/{epoch['max_epochs']}",
                    f"{epoch[f'validation_{metric.name}']:.4f}",
                    f"{epoch[metric.key]:.4f}",
                    f"{epoch['time_total_s']:.0f}",
                )
            table.add_row(str(record.number), *figures, described(record.parameters))
        self._show(table)
