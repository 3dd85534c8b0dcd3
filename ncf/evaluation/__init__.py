"""Metrics, predictions for every row, errors by slice, calibration, full rankings and their scores,
and paired comparisons of models with confidence intervals. May import ``ncf.models`` and below."""

__all__ = [
    "assessment",
    "calibration",
    "choice_data",
    "choice_scores",
    "choice_selection",
    "choice_significance",
    "diversity",
    "full_ranking",
    "holdout",
    "metrics",
    "predictions",
    "ranking",
    "ranking_metrics",
    "residuals",
    "significance",
    "slices",
]
