"""Training on Ray: tasks, worker groups, a pool of persistent groups, progress and metrics. May
import ``ray_jobs.cluster`` and below."""

__all__ = [
    "pool_worker",
    "progress",
    "scratch",
    "split_cache",
    "tasks",
    "telemetry",
    "torch_trainers",
    "trial_queue",
    "worker",
    "worker_pool",
]
