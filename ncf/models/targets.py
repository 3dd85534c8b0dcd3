"""Training targets and loss weights, and predictions back on the scale of stars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ncf.config import TimeDecayConfig, TrainConfig
from ncf.data.batches import Batch, RatingSource
from ncf.data.preprocessor import Preprocessor


@dataclass(frozen=True)
class Objective:
    """What the training minimises, and how its predictions are read."""

    train: TrainConfig
    time_decay: TimeDecayConfig
    preprocessor: Preprocessor

    def targets(self, rows: Batch) -> torch.Tensor:
        """``[B]`` what the network is to predict."""
        if self.time_decay.apply_to == "target":
            return rows.ratings * rows.weights
        return rows.ratings

    def training_rows(self, rows: RatingSource) -> RatingSource:
        """``rows`` with the target for the rating and the weight of the row's loss for the weight.

        Losses' weights have mean 1 over all rows, which keeps the learning rate and the ridge
        penalty meaning the same at any decay rate.
        """
        mean = None
        if self.time_decay.apply_to == "loss":
            mean = mean_over(rows, lambda part: part.weights)

        def change(part: Batch) -> Batch:
            weights = torch.ones_like(part.weights) if mean is None else part.weights / mean
            return replace(part, ratings=self.targets(part), weights=weights)

        return rows.map(change)

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


def mean_over(rows: RatingSource, value: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
    """The mean of ``value``, ``[B]`` of a batch, over all rows."""
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    for part in rows.parts():
        total += value(part).mean().double() * len(part)
    return (total / len(rows)).float()
