"""A model's prediction for every single row, kept for whatever is asked of it later."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import distributed, nn

from ncf.batches import ALONE, Batch, Rows, Share, chunks
from ncf.metrics import ErrorSums, Scores
from ncf.training import EVALUATION_CHUNK, Objective, unwrapped

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """Predictions for N rows, in the order of the release's file."""

    stars: Floats
    """``[N]`` ratings, clipped to the range of the training ratings."""
    decayed: Floats
    """``[N]`` the same on the scale rating * weight."""

    def to_arrow(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """A table, with ``rows: [N]`` as the positions in the release's file."""
        return pa.table({"row": rows, "stars": self.stars, "decayed": self.decayed})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Predictions:
        """Read back what ``to_arrow`` made."""
        return cls(table["stars"].to_numpy(), table["decayed"].to_numpy())

    @classmethod
    def mean(cls, found: Sequence[Predictions]) -> Predictions:
        """The mean of several models' predictions for the same rows."""
        stars = np.stack([each.stars for each in found]).mean(axis=0)
        decayed = np.stack([each.decayed for each in found]).mean(axis=0)
        return cls(stars, decayed)

    def score(self, rows: Batch) -> Scores:
        """Errors of the predictions for ``rows``, on both scales."""
        return Scores(
            ErrorSums.of(torch.from_numpy(self.stars), rows.ratings),
            ErrorSums.of(torch.from_numpy(self.decayed), rows.ratings * rows.weights),
        )

    def on(self, scale: str) -> Floats:
        """``[N]`` on the scale ``stars`` or ``decayed``."""
        return self.decayed if scale == "decayed" else self.stars


def predict(
    model: nn.Module, rows: Rows, objective: Objective, share: Share = ALONE
) -> Predictions:
    """Predict every row; with several workers each computes its share, and all get the whole."""
    model.eval()
    network = unwrapped(model)
    found = torch.zeros(2, len(rows), device=rows.device)
    after = 0
    with torch.no_grad(), closing(rows.parts()) as parts:
        for part in parts:
            before, after = after, after + len(part)
            mine, done = found[:, before:after][:, share.rank :: share.size], 0
            for batch in chunks(share.of(part), EVALUATION_CHUNK):
                outputs = network.point(model(batch.users, batch.movies, batch.times))
                found_here = mine[:, done : done + len(batch)]
                found_here[0] = objective.stars(outputs, batch)
                found_here[1] = objective.decayed(outputs, batch)
                done += len(batch)
    if share.size > 1:
        distributed.all_reduce(found)  # every other worker's entries are 0
    stars, decayed = found.cpu().numpy()
    return Predictions(stars, decayed)
