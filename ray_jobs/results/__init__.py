"""What a run leaves: its folders and stages, the final model, comparisons, and tables for other
programs. May import ``ray_jobs.config``, ``ncf``, ``ingest`` and ``foundation``."""

__all__ = [
    "across_folds",
    "choices",
    "comparison",
    "final_model",
    "metrics",
    "paths",
    "rankings",
    "run",
    "stage",
    "trackers",
    "undefined",
    "user_csv",
]
