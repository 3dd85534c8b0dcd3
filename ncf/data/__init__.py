"""From raw tables to batches of tensors: splits, movie features, the fitted preprocessor, prepared
data sets on disk, and the samplers. May import ``ncf.config``, ``ncf.errors`` and ``foundation``;
only ``ncf.data.prepare`` imports Ray."""

__all__ = [
    "batches",
    "card",
    "dataset",
    "features",
    "interactions",
    "placement",
    "prepare",
    "preprocessor",
    "ray_tasks",
    "sampling",
    "split_files",
    "splits",
    "streaming",
]
