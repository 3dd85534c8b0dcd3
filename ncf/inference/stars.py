"""Predicted ratings of single pairs, by the network or the blend of a checkpoint."""

from __future__ import annotations

import numpy as np
import torch

from ncf.data.batches import Batch, chunks
from ncf.data.preprocessor import Integers, Preprocessor
from ncf.evaluation.predictions import EVALUATION_CHUNK
from ncf.inference.checkpoint import Checkpoint
from ncf.models.targets import Objective


def rows_to_predict(
    preprocessor: Preprocessor, users: Integers, movies: Integers, times: Integers
) -> Batch:
    """Rows with ratings of 0: indices ``[B]``, and times ``[B]`` or one for all."""
    seconds = np.broadcast_to(times, users.shape).copy()
    return Batch(
        users=torch.from_numpy(users.astype(np.int32)),
        movies=torch.from_numpy(movies.astype(np.int32)),
        ratings=torch.zeros(len(users)),
        weights=torch.from_numpy(preprocessor.decay_weight(seconds)),
        times=torch.from_numpy(seconds),
    )


def network_stars(checkpoint: Checkpoint, rows: Batch) -> torch.Tensor:
    """``[B]`` what the network alone predicts, within the range of the training ratings."""
    experiment = checkpoint.experiment
    objective = Objective(experiment.train, experiment.time_decay, checkpoint.preprocessor)
    parts = [torch.zeros(0)]
    with torch.inference_mode():
        for part in chunks(rows, EVALUATION_CHUNK):
            outputs = checkpoint.model.expected_ratings(part.users, part.movies, part.times)
            parts.append(objective.stars(outputs, part))
    return torch.cat(parts)


def member_stars(checkpoint: Checkpoint, rows: Batch) -> torch.Tensor:
    """``[K, B]`` clipped predictions of the network, and of the members of a blend."""
    stars = network_stars(checkpoint, rows)
    return stars[None] if checkpoint.blend is None else checkpoint.blend.each(stars, rows)


def combined(checkpoint: Checkpoint, of_members: torch.Tensor) -> torch.Tensor:
    """``[B]`` what the checkpoint predicts, from ``member_stars``: ``[K, B]``."""
    if checkpoint.blend is None:
        return of_members[0]
    preprocessor = checkpoint.preprocessor
    return checkpoint.blend.combine(of_members).clamp(
        preprocessor.rating_min, preprocessor.rating_max
    )


def predicted_stars(checkpoint: Checkpoint, rows: Batch) -> torch.Tensor:
    """``[B]`` what the checkpoint predicts, within the range of the training ratings."""
    return combined(checkpoint, member_stars(checkpoint, rows))
