"""The stages of a run, and ``graph``, which brings them up to date. May import ``ray_jobs.search``
and below."""

__all__ = [
    "blending",
    "choice_comparison",
    "choice_inputs",
    "choice_search",
    "choice_training",
    "compared_baselines",
    "compared_blends",
    "compared_choice_baselines",
    "compared_choice_models",
    "compared_models",
    "compared_stacking",
    "comparison",
    "cross_validation",
    "graph",
    "preparation",
    "provenance",
    "recommendation",
    "rows",
    "stacking",
    "training",
    "tuning",
]
