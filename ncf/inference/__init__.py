"""Using a trained model, without Ray: checkpoints, predictions, recommendations, similar movies and
explanations. May import ``ncf.evaluation`` and below; ``ncf.training`` and ``ncf.baselines``
are its siblings and are not imported."""

__all__ = [
    "all_pairs",
    "checkpoint",
    "choice_checkpoint",
    "choices",
    "inputs",
    "ordering",
    "recommender",
    "shapes",
    "similarity",
    "titles",
    "top_k",
]
