"""Training on Ray: tasks, their queue, the worker groups of a job, progress and metrics. May import
``ray_jobs.results`` and below."""

__all__ = [
    "choice_worker",
    "local_mode",
    "pool_worker",
    "progress",
    "run_tasks",
    "saved_state",
    "scratch",
    "split_cache",
    "task_queue",
    "tasks",
    "telemetry",
    "torch_trainers",
    "trainers",
    "worker",
    "workers",
]
