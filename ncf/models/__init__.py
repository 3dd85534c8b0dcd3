"""The model: a network of branches, their fusion, dense layers and a prediction head; the rating
histories that condition it; training targets. May import ``ncf.data`` and below."""

__all__ = [
    "branches",
    "conditioned",
    "fusion",
    "heads",
    "history",
    "layers",
    "ncf",
    "targets",
    "weights",
]
