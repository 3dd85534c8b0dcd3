"""A model's predictions for every row, and errors over all rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import distributed

from ncf.data.batches import Batch, RatingSource, chunks
from ncf.data.sampling import SINGLE_WORKER, Shard, sum_over_workers
from ncf.evaluation.metrics import NUM_SUMS, ErrorSums, Scores, error_vector
from ncf.models.targets import Objective

Floats = npt.NDArray[np.float32]

EVALUATION_CHUNK: Final = 4096
"""Rows per forward pass in evaluation: enough to make overhead negligible, and few enough to keep
the activations in the cache."""

_RETAINED_NUMBERS: Final = 4_000_000


class RatingModel(Protocol):
    """A model that predicts ratings, such as ``ncf.models.conditioned.ConditionedModel``."""

    def eval(self) -> object:
        """Put the model into evaluation mode."""

    def expected_ratings(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor
    ) -> torch.Tensor:
        """``[B], [B], [B] -> [B]`` predictions in the training target's unit."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for N rows, in the order of the release's file."""

    stars: Floats
    """``[N]`` ratings, clipped to the range of the training ratings."""
    decayed: Floats
    """``[N]`` predictions on the scale rating * weight."""

    def to_arrow(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """Convert to a table; ``rows: [N]`` are positions in the release's file."""
        return pa.table({"row": rows, "stars": self.stars, "decayed": self.decayed})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Predictions:
        """Convert a table of ``to_arrow`` back."""
        return cls(table["stars"].to_numpy(), table["decayed"].to_numpy())

    @classmethod
    def mean(cls, each_model: Sequence[Predictions]) -> Predictions:
        """The mean of several models' predictions for the same rows."""
        stars = np.stack([each.stars for each in each_model]).mean(axis=0)
        decayed = np.stack([each.decayed for each in each_model]).mean(axis=0)
        return cls(stars, decayed)

    def score(self, rows: Batch) -> Scores:
        """Errors of the predictions for ``rows``, on both scales."""
        return Scores(
            ErrorSums.of(torch.from_numpy(self.stars), rows.ratings),
            ErrorSums.of(torch.from_numpy(self.decayed), rows.ratings * rows.weights),
        )

    def on(self, scale: str) -> Floats:
        """``[N]`` predictions on the scale ``stars`` or ``decayed``."""
        return self.decayed if scale == "decayed" else self.stars


def predict(
    model: RatingModel, rows: RatingSource, objective: Objective, shard: Shard = SINGLE_WORKER
) -> Predictions:
    """Predict every row; each of several workers computes its shard, and all return all rows."""
    model.eval()
    predictions = torch.zeros(2, len(rows), device=rows.device)
    after = 0
    with torch.no_grad(), closing(rows.parts()) as parts:
        for part in parts:
            before, after = after, after + len(part)
            mine, done = predictions[:, before:after][:, shard.rank :: shard.world_size], 0
            for batch in chunks(shard.of(part), EVALUATION_CHUNK):
                outputs = model.expected_ratings(batch.users, batch.movies, batch.times)
                of_batch = mine[:, done : done + len(batch)]
                of_batch[0] = objective.stars(outputs, batch)
                of_batch[1] = objective.decayed(outputs, batch)
                done += len(batch)
    if shard.world_size > 1:
        distributed.all_reduce(predictions)  # every other worker's entries are 0
    stars, decayed = predictions.cpu().numpy()
    return Predictions(stars, decayed)


def evaluate(
    model: RatingModel, rows: RatingSource, objective: Objective, shard: Shard = SINGLE_WORKER
) -> Scores:
    """Errors over all ``rows``, summed over the shards of all workers."""
    model.eval()
    # glibc retains as much freed memory as the largest block it has freed. Without this, it returns
    # the memory of each chunk to the system, and getting it back takes as long as the arithmetic.
    torch.empty(_RETAINED_NUMBERS)
    totals = torch.zeros(2, NUM_SUMS, dtype=torch.float64, device=rows.device)
    with torch.no_grad(), closing(rows.parts()) as parts:
        for batch in (b for part in parts for b in chunks(shard.of(part), EVALUATION_CHUNK)):
            outputs = model.expected_ratings(batch.users, batch.movies, batch.times)
            totals[0] += error_vector(objective.stars(outputs, batch), batch.ratings)
            totals[1] += error_vector(
                objective.decayed(outputs, batch), batch.ratings * batch.weights
            )
    sum_over_workers(totals, shard)
    return Scores(ErrorSums.from_vector(totals[0]), ErrorSums.from_vector(totals[1]))
