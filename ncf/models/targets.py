"""Training targets and loss weights, and predictions back on the scale of stars."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from ncf.config import TimeDecayConfig, TrainConfig
from ncf.data.batches import Batch, R, RatingSource, TrainingBatch
from ncf.data.preprocessor import Preprocessor
from ncf.data.sampling import TrainingRows


@dataclass(frozen=True)
class Objective:
    """What training minimises, and how predictions become ratings in stars."""

    train: TrainConfig
    time_decay: TimeDecayConfig
    preprocessor: Preprocessor

    def targets(self, rows: Batch) -> torch.Tensor:
        """``[B]`` what the network is to predict."""
        if self.time_decay.apply_to == "target":
            return rows.ratings * rows.weights
        return rows.ratings

    def training_rows(self, rows: RatingSource) -> TrainingRows:
        """``rows`` with targets and loss weights.

        Loss weights have mean 1 over all rows, so that a learning rate or an L2 penalty has the
        same effect at any decay rate.
        """
        mean = None
        if self.time_decay.apply_to == "loss":
            mean = mean_over(rows.parts(), lambda part: part.weights)

        def convert(part: Batch) -> TrainingBatch:
            weights = torch.ones_like(part.weights) if mean is None else part.weights / mean
            return TrainingBatch(part.users, part.movies, self.targets(part), weights, part.times)

        return TrainingRows(rows, convert)

    def stars(self, outputs: torch.Tensor, rows: Batch) -> torch.Tensor:
        """``[B]`` predicted ratings, clipped to the range of the training ratings."""
        if self.time_decay.apply_to == "target":
            outputs = outputs / rows.weights
        return outputs.clamp(self.preprocessor.rating_min, self.preprocessor.rating_max)

    def decayed(self, outputs: torch.Tensor, rows: Batch) -> torch.Tensor:
        """``[B]`` predictions on the scale rating * weight."""
        if self.time_decay.apply_to == "target":
            return outputs
        return self.stars(outputs, rows) * rows.weights


def mean_over(parts: Iterable[R], value: Callable[[R], torch.Tensor]) -> torch.Tensor:
    """The mean of ``value``, which returns ``[B]`` for B rows, over the rows of all ``parts``."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for part in parts:
        total = total + value(part).mean().double() * len(part)
        count += len(part)
    return (total / count).float()
