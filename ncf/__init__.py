"""Neural collaborative filtering: data preparation, model, training and evaluation.

Only ``ncf.data.prepare`` imports Ray; everything else runs, and is tested, without a cluster. To
use a trained model::

    import ncf
    model = ncf.load("artifacts/runs/NAME")
    model.predict(users=[1, 2], movies=[318, 318]), model.recommend(user=42, n=10)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ncf.inference.recommender import Recommender


def load(folder: str | Path) -> Recommender:
    """Load the model in a checkpoint's folder, see ``ncf.inference.recommender.Recommender``.

    Raises:
        CheckpointError: if a file is missing, damaged or of another version.
    """
    # Importing torch takes seconds, and tasks that prepare ratings do not need it.
    from ncf.inference.recommender import load

    return load(folder)
