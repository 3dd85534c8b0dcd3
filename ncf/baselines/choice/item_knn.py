"""Item-based nearest neighbours of unary ratings.

The score of movie i for a user is the sum of s(i, j) over those rated movies j that are among the
k movies most similar to i; Deshpande & Karypis, Item-Based Top-N Recommendation Algorithms, 2004.
With n(i) users who rated i and n(i, j) who rated both::

    s(i, j) = n(i, j) / (n(i)^a n(j)^(1 - a) + shrinkage)

which for a = 1/2 is the cosine, and for less lets popular movies have higher scores: the asymmetric
cosine of Aiolli, Efficient Top-N Recommendation for Very Large Scale Binary Rated Datasets, 2013.
The shrinkage is that of Ferrari Dacrema et al., 2019, https://arxiv.org/abs/1907.06902.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from scipy import sparse

from ncf.baselines.choice.base import ChoiceBaselineSpec
from ncf.data.interactions import Floats, Interactions
from ncf.data.preprocessor import Preprocessor
from ncf.models.choice.base import ChoiceModel

_CELLS: Final = 4_000_000
"""Maximum size of a dense block processed at once."""


@dataclass(frozen=True)
class ItemKnnSettings:
    """Settings of the nearest neighbours."""

    neighbours: int = 60
    """Maximum number of movies that are similar to a movie."""
    shrinkage: float = 10.0
    """Shrinkage of similarities, which matters for movies with few ratings."""
    normalization: float = 0.5
    """Power a of the scored movie's count; the rated movie's has the power 1 - a."""


class ItemKnn(ChoiceModel):
    """Sums of the similarities with the movies that a user rated.

    Args:
        similarities: ``[M, M]`` of each scored movie (row) with its neighbours.
    """

    def __init__(self, similarities: sparse.csr_array) -> None:
        self.similarities = similarities

    def scores(self, known: Interactions) -> torch.Tensor:
        """``[B, M]``; 0 for a movie without a rated neighbour."""
        return torch.from_numpy((known.matrix() @ self.similarities.T).toarray())


def item_knn(train: Interactions, settings: ItemKnnSettings) -> ItemKnn:
    """Find the neighbours of all movies, some movies at a time."""
    rated = train.matrix()
    size = max(1, _CELLS // max(train.num_movies, 1))
    blocks = [
        nearest(similarities(rated, start, min(start + size, train.num_movies), settings), settings)
        for start in range(0, train.num_movies, size)
    ]
    empty = sparse.csr_array((0, train.num_movies), dtype=np.float32)
    return ItemKnn(sparse.csr_array(sparse.vstack([empty, *blocks])))


def similarities(
    rated: sparse.csr_array, start: int, stop: int, settings: ItemKnnSettings
) -> Floats:
    """``[stop - start, M]`` of the movies ``start:stop`` with all; 0 with itself.

    ``rated: [B, M]`` has 1 for each rating.
    """
    common: Floats = (rated[:, start:stop].T @ rated).toarray()
    common[np.arange(stop - start), np.arange(start, stop)] = 0
    # A movie without ratings has no common users either.
    counts = np.maximum(rated.sum(axis=0, dtype=np.float64), 1.0)
    of_scored = (counts[start:stop] ** settings.normalization).astype(np.float32)
    of_rated = (counts ** (1 - settings.normalization)).astype(np.float32)
    norms = np.outer(of_scored, of_rated)
    norms += np.float32(settings.shrinkage)
    common /= norms
    return common


def nearest(of_block: Floats, settings: ItemKnnSettings) -> sparse.csr_array:
    """``[m, M]`` the highest positive values of each row; of equal ones the first in the table."""
    at = min(settings.neighbours, of_block.shape[1])
    # NumPy's partition takes several times as long, with all the zeros.
    last = torch.from_numpy(of_block).topk(at, dim=1).values[:, -1:].numpy()
    above, equal = of_block > last, (of_block == last) & (last > 0)
    missing = at - above.sum(axis=1, keepdims=True)
    kept = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= missing))
    rows, movies = np.nonzero(kept)
    starts = np.searchsorted(rows, np.arange(len(of_block) + 1))
    return sparse.csr_array((of_block[kept], movies, starts), shape=of_block.shape)


def _fit(train: Interactions, preprocessor: Preprocessor, settings: ItemKnnSettings) -> ItemKnn:
    del preprocessor
    return item_knn(train, settings)


ITEM_KNN: Final = ChoiceBaselineSpec[ItemKnnSettings](
    "item-knn",
    "item kNN",
    ItemKnnSettings(),
    _fit,
    {
        "neighbours": IntDistribution(10, 1000, log=True),
        "shrinkage": FloatDistribution(0.1, 300.0, log=True),
        "normalization": FloatDistribution(0.0, 1.0),
    },
)
