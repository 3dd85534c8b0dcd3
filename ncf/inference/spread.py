"""Standard deviations and intervals of a checkpoint's predictions."""

from __future__ import annotations

import numpy as np
import torch

from ncf.data.batches import Batch
from ncf.data.preprocessor import Floats
from ncf.errors import InputError, UnsupportedError
from ncf.evaluation.uncertainty import LEVELS, Features, Intervals
from ncf.inference.checkpoint import Checkpoint
from ncf.models.history.ratings import Ratings, by_user


def interval_features(checkpoint: Checkpoint, rows: Batch, of_members: torch.Tensor) -> Features:
    """Features of rows by which the size of errors differs.

    Args:
        checkpoint: predicts them.
        rows: ``[N]``.
        of_members: ``[K, N]`` clipped stars of the network, and of the members of a blend.
    """
    table, mean = checkpoint.preprocessor.movies, checkpoint.preprocessor.rating_mean
    stars = of_members.double().numpy()
    center = stars.mean(axis=0) - mean
    movies = rows.movies.long().numpy()
    found = {
        "prediction": center,
        "square of the prediction": center**2,
        "movie's ratings": np.log1p(table.train_counts[movies].astype(np.float64)),
        **({"disagreement of members": np.log(stars.std(axis=0) + 0.05)} if len(stars) > 1 else {}),
    }
    if checkpoint.model.has_attributions:
        found["posterior deviation"] = np.log(_deviations(checkpoint, rows) + 1e-3)
    return found


def intervals_of(
    checkpoint: Checkpoint, features: Features, stars: Floats, level: float
) -> Intervals:
    """Intervals around the predictions ``stars: [N]``, from the ``interval_features`` of the rows.

    Raises:
        UnsupportedError: if the checkpoint has none, because there were no validation rows.
        InputError: if ``level`` is none of ``LEVELS``.
    """
    if checkpoint.uncertainty is None:
        raise UnsupportedError(
            "this model has no intervals: they are learned from validation rows, and it was "
            "trained without any (split.validation), or by an earlier version"
        )
    if level not in LEVELS:
        raise InputError(f"level: found {level!r}, expected one of {', '.join(map(str, LEVELS))}")
    preprocessor = checkpoint.preprocessor
    ends = preprocessor.rating_min, preprocessor.rating_max
    return checkpoint.uncertainty.intervals(stars, features, level, *ends)


def _deviations(checkpoint: Checkpoint, rows: Batch) -> Floats:
    """``[N]`` posterior standard deviations of the Gaussian process, user by user."""
    result = np.zeros(len(rows))
    order = torch.argsort(rows.users, stable=True)
    with torch.inference_mode():
        for user, of_user in by_user(rows.users[order].long(), order):
            asked = Ratings.of(rows.movies[of_user].long(), rows.times[of_user])
            result[of_user.numpy()] = checkpoint.model.deviations(user, asked).numpy()
    return result
