"""Forwards epochs of a running ``TorchTrainer`` from its controller to the driver.

The driver logs them, and exports them as Ray metrics.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ray.train import Checkpoint, UserCallback
from ray.util.queue import Queue

from ray_jobs.cluster.resources import Resources
from ray_jobs.cluster.session import beside_the_driver
from ray_jobs.training.telemetry import EpochMetrics

SECONDS_BETWEEN_LINES: Final = 1.5

logger: Final = logging.getLogger(__name__)


class EpochLog(UserCallback):
    """Logs epochs, and exports them as Ray metrics; for a training in this process."""

    def __init__(self, run: str) -> None:
        self._metrics = EpochMetrics(run)
        self._logged = -math.inf

    def record(self, metrics: dict[str, Any]) -> None:
        """Record every epoch; log at most one every ``SECONDS_BETWEEN_LINES``."""
        self._metrics.epoch(metrics["task"], metrics)
        if time.monotonic() - self._logged >= SECONDS_BETWEEN_LINES:
            logger.info("   %s", describe(metrics))
            self._logged = time.monotonic()

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Called after an epoch, see ``ray_jobs.training.local_mode``."""
        if "epoch" in metrics[0]:
            self.record(metrics[0])


class EpochSender(UserCallback):
    """Sends each report's metrics to the driver; runs in Train's controller process."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Called by Ray Train after all workers have reported."""
        if "epoch" in metrics[0]:
            self._queue.put(metrics[0])


@contextmanager
def epoch_progress(run: str, resources: Resources) -> Iterator[UserCallback]:
    """A callback that logs the epochs of ``run`` in this process during the block."""
    log = EpochLog(run)
    if not resources.num_workers:
        yield log
        return
    queue = Queue(actor_options=beside_the_driver())
    reader = threading.Thread(target=_record_until_none, args=(queue, log), daemon=True)
    reader.start()
    try:
        yield EpochSender(queue)
    finally:
        queue.put(None)
        reader.join()
        queue.shutdown()


def _record_until_none(queue: Queue, log: EpochLog) -> None:
    while (metrics := queue.get()) is not None:
        log.record(metrics)


def describe(metrics: dict[str, Any]) -> str:
    """One line on one epoch."""
    parts = [
        f"{metrics['task']:<18}",
        f"epoch {metrics['epoch']:>3}/{metrics['max_epochs']}",
        f"train loss {metrics['train_loss']:.4f}",
    ]
    if "validation_rmse" in metrics:
        parts.append(f"validation RMSE {metrics['validation_rmse']:.4f}")
    if "streamed" in metrics:
        parts.append("rows streamed")
    return "  ".join(parts)
