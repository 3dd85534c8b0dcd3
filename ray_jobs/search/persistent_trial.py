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

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from ray_jobs.training.task_queue import TaskQueue


class PersistentTrial(Trainable):
    """Drives one trial after another, by adding the task of each to the queue."""

    def setup(self, config: dict[str, Any], *, search: str, queue: ActorHandle[TaskQueue]) -> None:
        """Called by Ray Tune before the first trial."""
        self._search = search
        self._queue = queue
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Ray Tune before each further trial.

        Parameters that are not valid together fail in ``step``: an error here would reach loggers
        before the start of its trial, and loggers such as MLflow's would end the search.
        """
        add = self._queue.add_trial.remote
        self._error = ray.get(add(self._search, self.trial_id, new_config))
        return True

    def step(self) -> dict[str, Any]:
        """The next epoch.

        Raises:
            TrainingError: if the trial failed.
        """
        if self._error:
            raise TrainingError(self._error)
        metrics, error = ray.get(self._queue.next_epoch.remote(self.trial_id))
        if error:
            raise TrainingError(error)
        # At the end what Tune's own wrapper of functions returns: no result, and so no new row.
        return metrics or {DONE: True, RESULT_DUPLICATE: True}
