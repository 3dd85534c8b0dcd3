"""Training on Ray: worker groups, their persistent pool, progress and metrics of running tasks. May
import ``ray_jobs.cluster`` and below."""

__all__ = [
    "progress",
    "scratch",
    "telemetry",
    "worker",
    "worker_pool",
]
