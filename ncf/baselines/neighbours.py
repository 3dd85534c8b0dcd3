"""Item-based nearest neighbours as Surprise's ``KNNBaseline`` with ``pearson_baseline``.

The prediction for user u and movie i is the bias prediction b(u, i) plus the mean deviation of u's
ratings of the k movies most similar to i from their bias predictions, weighted by similarity::

    sum over j of s(i, j) (r(u, j) - b(u, j)) / sum over j of s(i, j)

where s(i, j) is the correlation of the deviations of all users who rated both, shrunk by
(n - 1) / (n - 1 + shrinkage) for n such users. Only positive similarities count.
https://surprise.readthedocs.io/en/stable/knn_inspired.html and .../similarities.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import torch
from scipy import sparse

from ncf.baselines.base import Baseline, BaselineSpec, movies_of, squared_error, users_of
from ncf.baselines.bias import Biases, damped_bias
from ncf.data.batches import Batch
from ncf.data.preprocessor import UNKNOWN, Floats, Integers, Preprocessor

NEIGHBOURS: Final = (20, 40, 80, 160)
"""Numbers of neighbours tried."""

SHRINKAGES: Final = (50.0, 100.0, 200.0, 400.0)
"""Shrinkages of the similarity tried."""

DAMPINGS: Final = ((15.0, 10.0), (5.0, 2.5))
"""Dampings of the user and movie biases tried; the first are Surprise's defaults."""

_CELLS: Final = 2_000_000
"""Maximum size of a dense block processed at once."""


@dataclass(frozen=True)
class NeighbourSettings:
    """Settings of the nearest neighbours."""

    neighbours: int = 40
    """Maximum number of rated movies that a prediction uses."""
    shrinkage: float = 100.0
    """Shrinkage of similarities, which matters for few common users."""
    user_damping: float = 15.0
    """Damping of the user biases."""
    movie_damping: float = 10.0
    """Damping of the movie biases."""


@dataclass(frozen=True)
class NearestNeighbours(Baseline):
    """The bias prediction corrected by the user's ratings of similar movies."""

    settings: NeighbourSettings
    biases: Biases
    """Biases of users and movies, fitted first."""
    deviations: sparse.csr_array
    """``[U + 1, M]`` rating minus bias prediction; row 0, for unknown users, is empty."""

    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""
        neighbours, shrinkage = self.settings.neighbours, self.settings.shrinkage
        return torch.from_numpy(self.predict_each(rows, (shrinkage,), (neighbours,))[0, 0])

    def predict_each(
        self, rows: Batch, shrinkages: Sequence[float], neighbours: Sequence[int]
    ) -> Floats:
        """``[len(shrinkages), len(neighbours), B]`` stars for every combination, in one pass."""
        users, movies = users_of(rows), movies_of(rows)
        stars = np.tile(self.biases.stars(users, movies), (len(shrinkages), len(neighbours), 1))
        for block, of_block in _movie_blocks(movies, self.deviations.shape[1]):
            correlation, common = self._correlations(block)
            for s, shrinkage in enumerate(shrinkages):
                similarity = shrunk(correlation, common, shrinkage)
                for part in self._parts(users, of_block):
                    rated, deviation = self._histories(users[part])
                    row = np.searchsorted(block, movies[part])[:, None]
                    # Padding refers to a column of zeros, which do not contribute to means.
                    weights = similarity[row, rated]
                    stars[s][:, part] += best_means(weights, deviation, neighbours)
        return stars

    def _correlations(self, block: Integers) -> tuple[Floats, Floats]:
        """Correlation and number of common users of ``block: [m]`` with all: ``[m, M]`` each."""
        deviations = self.deviations
        rated = _like(deviations, np.ones_like(deviations.data))
        squares = _like(deviations, deviations.data**2)
        products = (deviations[:, block].T @ deviations).toarray()
        of_block = (squares[:, block].T @ rated).toarray()
        of_others = (rated[:, block].T @ squares).toarray()
        common = (rated[:, block].T @ rated).toarray()
        norm = np.sqrt(of_block * of_others)
        correlation = np.divide(products, norm, out=np.zeros_like(products), where=norm > 0)
        return correlation, common

    def _parts(self, users: Integers, rows: Integers) -> Iterator[Integers]:
        """Parts of ``rows`` whose users' histories fit into a dense block, shortest first."""
        lengths = np.diff(self.deviations.indptr)[users[rows]]
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(rows):
            # The last history of a part is its longest: a part up to e has (e - s) l(e) cells.
            cells = np.arange(1, len(rows) - start + 1) * lengths[order[start:]]
            end = start + max(1, int(np.searchsorted(cells, _CELLS, side="right")))
            yield rows[order[start:end]]
            start = end

    def _histories(self, users: Integers) -> tuple[Integers, Floats]:
        """Rated movies and deviations of ``users: [R]``, ``[R, L]``; padding is movie -1."""
        start, end = self.deviations.indptr[users], self.deviations.indptr[users + 1]
        at = start[:, None] + np.arange(int((end - start).max(initial=0)))
        inside = at < end[:, None]
        at = np.where(inside, at, 0)
        rated = np.where(inside, self.deviations.indices[at], -1)
        return rated, np.where(inside, self.deviations.data[at], 0.0)


def shrunk(correlation: Floats, common: Floats, shrinkage: float) -> Floats:
    """``[m, M + 1]`` similarity, negative ones as 0; the last column is 0, for padding."""
    trust = np.maximum(common - 1, 0) / np.maximum(common - 1 + shrinkage, 1e-12)
    return np.pad(np.maximum(correlation * trust, 0.0), ((0, 0), (0, 1)))


def best_means(weights: Floats, values: Floats, sizes: Sequence[int]) -> Floats:
    """``[len(sizes), R]``: mean of ``values: [R, L]`` weighted by the k largest ``weights``.

    0 where no weight is positive.
    """
    most = min(max(sizes), weights.shape[1])
    if not most:
        return np.zeros((len(sizes), len(weights)))
    best = np.argpartition(-weights, most - 1, axis=1)[:, :most]
    chosen = np.take_along_axis(weights, best, axis=1)
    order = np.argsort(-chosen, axis=1)
    best, chosen = (
        np.take_along_axis(best, order, axis=1),
        np.take_along_axis(chosen, order, axis=1),
    )
    sums = np.cumsum(chosen * np.take_along_axis(values, best, axis=1), axis=1)
    totals = np.cumsum(chosen, axis=1)
    at = [min(size, most) - 1 for size in sizes]
    total = totals[:, at].T
    return np.divide(sums[:, at].T, total, out=np.zeros_like(total), where=total > 0)


def nearest_neighbours(
    rows: Batch, preprocessor: Preprocessor, settings: NeighbourSettings
) -> NearestNeighbours:
    """Fit the biases; similarities are computed for the movies of each prediction."""
    biases = damped_bias(rows, preprocessor, settings.user_damping, settings.movie_damping)
    users, movies = users_of(rows), movies_of(rows)
    has_user = users != UNKNOWN
    shape = (preprocessor.num_users + 1, len(preprocessor.movies))
    deviations = sparse.csr_array(
        (biases.residuals(rows)[has_user], (users[has_user], movies[has_user])), shape=shape
    )
    detail = (
        f"pearson_baseline, {settings.neighbours} neighbours, shrinkage {settings.shrinkage:g}, "
        f"{biases.detail}"
    )
    return NearestNeighbours("item kNN", detail, settings, biases, deviations)


def best_neighbours(
    train: Batch,
    validation: Batch | None,
    preprocessor: Preprocessor,
    num_trials: int | None = None,
) -> NeighbourSettings:
    """Of all 32 combinations, the settings with the lowest error on the validation rows."""
    del num_trials  # similarities are computed twice for the whole grid
    if validation is None:
        return NeighbourSettings()
    errors = {}
    for dampings in DAMPINGS:
        model = nearest_neighbours(train, preprocessor, NeighbourSettings(0, 0.0, *dampings))
        stars = model.predict_each(validation, SHRINKAGES, NEIGHBOURS)
        for (s, shrinkage), (n, neighbours) in product(
            enumerate(SHRINKAGES), enumerate(NEIGHBOURS)
        ):
            settings = NeighbourSettings(neighbours, shrinkage, *dampings)
            errors[settings] = squared_error(stars[s, n], validation, preprocessor)
    return min(errors, key=lambda settings: errors[settings])


def _movie_blocks(movies: Integers, num_movies: int) -> Iterator[tuple[Integers, Integers]]:
    """Blocks ``[m]`` of distinct movies, ascending, each with the rows of these movies."""
    order = np.argsort(movies, kind="stable")
    distinct, first = np.unique(movies[order], return_index=True)
    size = max(1, _CELLS // max(num_movies, 1))
    for start in range(0, len(distinct), size):
        end = start + size
        last = first[end] if end < len(distinct) else len(movies)
        yield distinct[start:end], order[first[start] : last]


def _like(matrix: sparse.csr_array, data: Floats) -> sparse.csr_array:
    """A matrix with the same sparsity and other values."""
    return sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


NEAREST_NEIGHBOURS: Final = BaselineSpec[NeighbourSettings](
    "item kNN",
    best_neighbours,
    nearest_neighbours,
    grid=len(NEIGHBOURS) * len(SHRINKAGES) * len(DAMPINGS),
)
