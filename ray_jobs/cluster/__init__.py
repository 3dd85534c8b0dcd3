"""Ray itself: starting or joining a cluster, what a training run takes from it, and the checks
before a job starts. May import ``ray_jobs.results``, ``ray_jobs.config`` and below."""

__all__ = [
    "hardware",
    "preflight",
    "resources",
    "session",
]
