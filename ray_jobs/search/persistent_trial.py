"""The driver of trials that persistent worker groups train.

Each trial that runs has a process with this module, which therefore does not import PyTorch: that
takes more memory and time than the rest of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray
from ray.tune import Trainable
from ray.tune.result import DONE, RESULT_DUPLICATE

from ray_jobs.errors import TrainingError
from ray_jobs.search.trial_names import described

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from ray_jobs.training.task_queue import TaskQueue


class PersistentTrial(Trainable):
    """Drives one trial after another, by adding the task of each to the queue."""

    def setup(
        self, config: dict[str, Any], *, search: str, queue: ActorHandle[TaskQueue], metric: str
    ) -> None:
        """Called by Ray Tune before the first trial."""
        self._search = search
        self._queue = queue
        self._metric = metric
        self._so_far = ""
        self.reset_config(config)

    def __repr__(self) -> str:
        """What Ray's dashboard calls the process, for all its trials."""
        return f"driver of {self._search} trials"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Ray Tune before each further trial.

        Parameters that are not valid together fail in ``step``: an error here would reach loggers
        before the start of its trial, and loggers such as MLflow's would end the search.
        """
        self.cleanup()
        self._values = described(new_config)
        add = self._queue.add_trial.options(name=f"{self.trial_name} with {self._values}").remote
        self._error = ray.get(add(self._search, self.trial_id, new_config))
        self._so_far = f"{self.trial_name} before epoch 1"
        return True

    def cleanup(self) -> None:
        """Called by Ray Tune after the last trial."""
        if self._so_far:
            name = f"{self._so_far} with {self._values}"
            self._queue.trial_ended.options(name=name).remote()
            self._so_far = ""

    def step(self) -> dict[str, Any]:
        """The next epoch.

        Raises:
            TrainingError: if the trial failed.
        """
        if self._error:
            raise self._failure(self._error)
        # The name of a call is what Ray's dashboard shows of a job's tasks.
        next_epoch = self._queue.next_epoch.options(name=self._so_far).remote
        metrics, error = ray.get(next_epoch(self.trial_id))
        if error:
            raise self._failure(error)
        if metrics:
            value = f"{self._metric} {metrics[self._metric]:.4f}"
            self._so_far = f"{self.trial_name} after epoch {metrics['epoch']}: {value}"
        # At the end what Tune's own wrapper of functions returns: no result, and so no new row.
        return metrics or {DONE: True, RESULT_DUPLICATE: True}

    def _failure(self, error: str) -> TrainingError:
        """Also shown under the trial's name: those of failed tasks are the same for all trials."""
        self._so_far = f"{self.trial_name} failed: {error}"
        self.cleanup()
        return TrainingError(error)
