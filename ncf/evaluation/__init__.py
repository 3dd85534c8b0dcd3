"""Metrics, predictions for every row, errors by slice, calibration, ranking metrics, and
paired comparisons of models with confidence intervals. May import ``ncf.models`` and below."""

__all__ = [
    "assessment",
    "calibration",
    "metrics",
    "predictions",
    "ranking",
    "residuals",
    "significance",
    "slices",
]
