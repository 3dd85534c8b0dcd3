"""A trained model in use, without Ray: checkpoints, predictions, recommendations, similar movies
and explanations. May import ``ncf.evaluation`` and below; ``ncf.training`` and ``ncf.baselines``
are its siblings and are not imported."""

__all__ = [
    "all_pairs",
    "checkpoint",
    "recommender",
    "top_k",
]
