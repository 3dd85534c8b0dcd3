"""The networks: branches that embed the inputs, their fusion, dense layers, prediction heads,
rating histories, and what the targets are. May import ``ncf.data`` and below."""

__all__ = [
    "branches",
    "fusion",
    "heads",
    "history",
    "layers",
    "ncf",
    "targets",
    "weights",
]
