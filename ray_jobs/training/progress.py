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

from ray_jobs.cluster.session import beside_the_driver
from ray_jobs.training.telemetry import EpochMetrics

SECONDS_BETWEEN_LINES: Final = 1.5

logger: Final = logging.getLogger(__name__)


class EpochProgress(UserCallback):
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
def epoch_progress(run: str) -> Iterator[EpochProgress]:
    """A callback that logs the epochs of ``run`` in this process during the block."""
    queue = Queue(actor_options=beside_the_driver())
    reader = threading.Thread(target=_log_until_none, args=(queue, run), daemon=True)
    reader.start()
    try:
        yield EpochProgress(queue)
    finally:
        queue.put(None)
        reader.join()
        queue.shutdown()


def _log_until_none(queue: Queue, run: str) -> None:
    """Record every epoch; log at most one every ``SECONDS_BETWEEN_LINES``."""
    recorded = EpochMetrics(run)
    logged = -math.inf
    while (metrics := queue.get()) is not None:
        recorded.epoch(metrics["task"], metrics)
        if time.monotonic() - logged >= SECONDS_BETWEEN_LINES:
            logger.info("   %s", describe(metrics))
            logged = time.monotonic()


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
