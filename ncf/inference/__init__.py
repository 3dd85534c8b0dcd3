"""Using a trained model, without Ray: checkpoints, predictions, recommendations, similar movies and
explanations. May import ``ncf.blending`` and below; ``ncf.training`` is not imported."""

__all__ = [
    "all_pairs",
    "checkpoint",
    "choice_checkpoint",
    "choices",
    "explanations",
    "inputs",
    "ordering",
    "recommender",
    "results",
    "shapes",
    "similarity",
    "spread",
    "stars",
    "titles",
    "top_k",
]
