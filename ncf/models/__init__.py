"""The rating model: a network of branches, their fusion, dense layers and a prediction head; the
rating histories that condition it; training targets. And ``choice``, the choice models. May import
``ncf.data`` and below."""

__all__ = [
    "branches",
    "choice",
    "conditioned",
    "fusion",
    "heads",
    "history",
    "layers",
    "ncf",
    "targets",
    "weights",
]
