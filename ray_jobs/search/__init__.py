"""The search by Ray Tune and Optuna: the space, schedulers, trainables, records of trials, and
resuming from them. May import ``ray_jobs.training`` and below."""

__all__ = [
    "persistent_trial",
    "progress",
    "resume",
    "schedulers",
    "space",
    "study",
    "telemetry",
    "trainables",
    "trial_models",
    "trial_tasks",
    "trials",
]
