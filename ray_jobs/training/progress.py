"""Log lines and Ray metrics of the epochs that a stage trains."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Final

from ray_jobs.training.telemetry import EpochMetrics

SECONDS_BETWEEN_LINES: Final = 1.5

logger: Final = logging.getLogger(__name__)


class EpochLog:
    """Logs the epochs of a run, and exports them as Ray metrics."""

    def __init__(self, run: str) -> None:
        self._metrics = EpochMetrics(run)
        self._logged = -math.inf

    def record(self, metrics: dict[str, Any]) -> None:
        """Record every epoch; log losses of workers, and at most one epoch every
        ``SECONDS_BETWEEN_LINES``."""
        if "lost" in metrics:
            lost = "lost its workers and goes on with others"
            logger.info("   note: %s %s: %s", metrics["task"], lost, metrics["lost"])
        self._metrics.epoch(metrics["task"], metrics)
        if time.monotonic() - self._logged >= SECONDS_BETWEEN_LINES:
            logger.info("   %s", describe(metrics))
            self._logged = time.monotonic()


def describe(metrics: dict[str, Any]) -> str:
    """One line on one epoch."""
    parts = [
        f"{metrics['task']:<18}",
        f"epoch {metrics['epoch']:>3}/{metrics['max_epochs']}",
    ]
    if "train_loss" in metrics:
        parts.append(f"train loss {metrics['train_loss']:.4f}")
    if "validation_rmse" in metrics:
        parts.append(f"validation RMSE {metrics['validation_rmse']:.4f}")
    elif "validation" in metrics:
        parts.append(f"validation {metrics['metric']} {metrics['validation']:.4f}")
    if "streamed" in metrics:
        parts.append("rows streamed")
    return "  ".join(parts)
