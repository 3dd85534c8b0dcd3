"""The sections of a report, one module for each subject."""

__all__ = [
    "choices",
    "comparison",
    "data",
    "errors",
    "model",
    "origin",
    "search",
]
