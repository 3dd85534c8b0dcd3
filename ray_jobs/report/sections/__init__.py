"""The sections of a report, one module for each subject."""

__all__ = [
    "comparison",
    "data",
    "errors",
    "model",
    "origin",
    "search",
]
