"""Answers of the final model of a run, for a terminal or a file. May import ``ray_jobs.results``,
``ncf`` and below."""

__all__ = ["prediction", "recommendation"]
