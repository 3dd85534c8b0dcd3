"""EASE in closed form, with values of ratings, content rows and context columns.

Each movie's column is predicted from all others by ridge regression. With the columns of ``A`` for
movies and context, and its rows for users and content, P = (AᵀA + ridge I)⁻¹ and

    weights B[j, i] = -P[j, i] / P[i, i], and 0 for j = i;    scores of a user's row x: x B

which is the zero-diagonal least-squares solution of Steck, 2019, https://arxiv.org/abs/1905.03375.
Where ``A`` has fewer rows than columns, P follows from the eigenvectors of A Aᵀ (the dual), for any
ridge: with A Aᵀ = Q S Qᵀ and F = Qᵀ A, P = (I - Fᵀ (S + ridge)⁻¹ F) / ridge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional

from ncf.choice_config import EaseConfig
from ncf.data.interactions import Floats, Interactions
from ncf.data.preprocessor import Preprocessor
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.content import content_columns, name_columns
from ncf.models.choice.context import Bumps
from ncf.models.choice.values import age_weights, rating_values, user_weights

ERAS: Final = 6
"""Bumps of the time of a user's newest rating."""

_FEW_USERS: Final = 8
"""Fewer users are the second factor of a matrix product: MKL takes up to four times as long for a
product of few rows and a transposed matrix."""

_EIGENVECTORS: Final = 7
"""Time for the eigenvectors of a matrix, as a multiple of that for its inverse: 17.7 and 2.6
seconds for 4,000 rows on one core."""

Tensors = dict[str, torch.Tensor]


class Precision(Protocol):
    """The matrix P of the module's docstring, over C columns, times any factor."""

    diagonal: torch.Tensor
    """``[C]``."""

    def times(self, rows: sparse.csr_array) -> torch.Tensor:
        """``rows: [B, C]`` -> ``rows P: [B, C]``."""

    def row(self, column: int) -> torch.Tensor:
        """``[C]`` one row of P."""

    def part(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """``[K, L]`` the entries of P in ``rows: [K]`` and ``columns: [L]``."""

    def tensors(self) -> Tensors:
        """What it is made from, to be stored."""


class DualPrecision:
    """ridge * P from the eigenvectors of A Aᵀ.

    Args:
        factors: F of the module's docstring, ``[R, C]``.
        shrinkage: ``[R]`` 1 / (S + ridge).
    """

    def __init__(self, factors: torch.Tensor, shrinkage: torch.Tensor) -> None:
        # The factors of one column are side by side: users' rows have few columns.
        self._columns = factors.T.contiguous()
        self._shrinkage = shrinkage
        self.diagonal = 1 - self._columns.square() @ shrinkage

    def times(self, rows: sparse.csr_array) -> torch.Tensor:
        """``rows: [B, C]`` -> ``[B, C]``."""
        weights = _times(rows, self._columns) * -self._shrinkage
        if len(weights) < _FEW_USERS:
            return _add(rows, (self._columns @ weights.T).T)
        return _add(rows, weights @ self._columns.T)

    def row(self, column: int) -> torch.Tensor:
        """``[C]``."""
        result = self._columns @ (self._columns[column] * -self._shrinkage)
        result[column] += 1
        return result

    def part(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """``[K], [L] -> [K, L]``."""
        weights = self._columns[rows] * -self._shrinkage
        return weights @ self._columns[columns].T + (rows[:, None] == columns)

    def tensors(self) -> Tensors:
        """``factors`` and ``shrinkage``."""
        return {"factors": self._columns.T, "shrinkage": self._shrinkage}


class PrimalPrecision:
    """P itself, ``inverse: [C, C]``."""

    def __init__(self, inverse: torch.Tensor) -> None:
        self._inverse = inverse.contiguous()
        self.diagonal = inverse.diagonal().clone()

    def times(self, rows: sparse.csr_array) -> torch.Tensor:
        """``rows: [B, C]`` -> ``[B, C]``."""
        return _times(rows, self._inverse)

    def row(self, column: int) -> torch.Tensor:
        """``[C]``."""
        return self._inverse[column]

    def part(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """``[K], [L] -> [K, L]``."""
        return self._inverse[rows[:, None], columns]

    def tensors(self) -> Tensors:
        """``inverse``."""
        return {"inverse": self._inverse}


class Decomposition(Protocol):
    """What is computed once for all ridges."""

    def precision(self, ridge: float) -> Precision:
        """P for this ridge."""


class _Dual:
    def __init__(self, rows: torch.Tensor) -> None:
        """``rows: [R, C]`` float64."""
        eigenvalues, vectors = torch.linalg.eigh(rows @ rows.T)
        self._eigenvalues = eigenvalues.clamp(min=0)
        self._factors = (rows.T @ vectors).float().T  # so that it is transposed without a copy

    def precision(self, ridge: float) -> Precision:
        shrinkage = (1 / (self._eigenvalues + ridge)).float()
        return DualPrecision(self._factors, shrinkage)


class _Primal:
    def __init__(self, gram: torch.Tensor) -> None:
        """``gram: [C, C]`` float64, AᵀA."""
        self._gram = gram

    def precision(self, ridge: float) -> Precision:
        ridged = self._gram.clone()
        ridged.diagonal().add_(ridge)
        # One Cholesky factorisation costs a tenth of an eigendecomposition.
        return PrimalPrecision(torch.cholesky_inverse(torch.linalg.cholesky(ridged)).float())


@dataclass(frozen=True)
class EaseInputs:
    """How users' ratings become rows; what of it is learned from the training ratings."""

    config: EaseConfig
    mean: float
    """Mean training rating, in stars."""
    eras: Bumps
    """Features of the time of the newest rating."""

    @classmethod
    def of(cls, train: Interactions, config: EaseConfig) -> EaseInputs:
        """For training ratings."""
        has_times = len(train.times) > 0
        low, high = (train.times.min(), train.times.max()) if has_times else (0, 0)
        mean = float(train.ratings.mean(dtype=np.float64)) if has_times else 0.0
        return cls(config, mean, Bumps(float(low), float(high), ERAS))

    @property
    def num_context(self) -> int:
        """Columns beside those of movies."""
        return self.eras.count if self.config.context else 0

    def movies(self, known: Interactions) -> sparse.csr_array:
        """``[B, M]`` values of the ratings."""
        return known.matrix(self.values(known))

    def values(self, known: Interactions) -> Floats:
        """``[N]`` value of each rating."""
        values = rating_values(known, self.config.values, self.mean)
        return values * age_weights(known, self.config.rating_half_life_years)

    def context(self, known: Interactions) -> torch.Tensor:
        """``[B, num_context]``."""
        if not self.num_context:
            return torch.zeros(len(known), 0)
        return self.config.context * torch.from_numpy(self.eras.of(known.last_times))


class Ease(ChoiceModel):
    """EASE for one ridge.

    Args:
        inputs: how ratings become rows.
        precision: P, over the columns of ``movies`` and context.
        num_movies: M.
        movies: ``[C']`` positions of the movies that have a column, ascending, or None for all.
    """

    def __init__(
        self,
        inputs: EaseInputs,
        precision: Precision,
        num_movies: int,
        movies: torch.Tensor | None = None,
    ) -> None:
        self.inputs = inputs
        self._precision = precision
        self._num_movies = num_movies
        self._movies = movies

    def scores(self, known: Interactions) -> torch.Tensor:
        """``[B, M]``; a movie without a column has the lowest of each user's scores."""
        rows = self._rows(known)
        scores = _add(rows, self._precision.times(rows).div_(-self._precision.diagonal))
        return self._of_all_movies(scores[:, : scores.shape[1] - self.inputs.num_context])

    def attributions(
        self, known: Interactions, movies: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of ``movies: [K]`` for one user as sums; exact.

        Returns:
            ``[K, H]`` terms of the user's H ratings, and ``[K]`` terms of the context.

        Raises:
            ValueError: if ``known`` has not exactly one user.
        """
        if len(known) != 1:
            raise ValueError(f"attributions are of one user, found {len(known)}")
        of_ratings = torch.from_numpy(self.inputs.values(known))
        values = torch.cat([of_ratings, self.inputs.context(known)[0]])
        rated = self._columns(torch.from_numpy(known.movies.astype(np.int64)))
        num_columns = len(self._precision.diagonal)
        context = torch.arange(num_columns - self.inputs.num_context, num_columns)
        terms = self._weights(torch.cat([rated, context]), self._columns(movies)) * values
        return terms[:, : len(rated)], terms[:, len(rated) :].sum(dim=1)

    def weights_to(self, movie: int) -> torch.Tensor:
        """``[C]`` column of B: by how much the value of each column raises this movie's score."""
        column = self._column(movie)
        if column is None:
            return torch.zeros_like(self._precision.diagonal)
        weights = -self._precision.row(column) / self._precision.diagonal[column]
        weights[column] = 0
        return weights

    def similarities(self, movie: int) -> torch.Tensor:
        """``[M]`` partial correlation of each movie with this one, given all others; 1 with itself
        and 0 for movies without a column."""
        column = self._column(movie)
        if column is None:
            return torch.zeros(self._num_movies)
        diagonal = self._precision.diagonal
        correlations = -self._precision.row(column) / (diagonal * diagonal[column]).sqrt()
        correlations[column] = 1
        num_columns = len(diagonal) - self.inputs.num_context
        return self._of_all_movies(correlations[None, :num_columns], absent=0.0)[0]

    def tensors(self) -> Tensors:
        """What ``of_tensors`` makes the same model from, with ``inputs``."""
        tensors = self._precision.tensors()
        if self._movies is not None:
            tensors["movies"] = self._movies
        return {name: part.contiguous() for name, part in tensors.items()}

    @classmethod
    def of_tensors(cls, inputs: EaseInputs, tensors: Tensors, num_movies: int) -> Ease:
        """The model whose ``tensors`` these are."""
        precision: Precision
        if "inverse" in tensors:
            precision = PrimalPrecision(tensors["inverse"])
        else:
            precision = DualPrecision(tensors["factors"], tensors["shrinkage"])
        return cls(inputs, precision, num_movies, tensors.get("movies"))

    def _rows(self, known: Interactions) -> sparse.csr_array:
        """``[B, C]``."""
        values = self.inputs.movies(known)
        if self._movies is not None:
            values = values[:, self._movies.numpy()]
        if not self.inputs.num_context:
            return values
        context = sparse.csr_array(self.inputs.context(known).numpy())
        return sparse.hstack([values, context], format="csr")

    def _weights(self, of: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        """``[K, L]`` entries of B in the rows ``of: [L]`` and columns ``to: [K]``; 0 where either
        is -1."""
        rows, columns = to.clamp(min=0), of.clamp(min=0)
        weights = -self._precision.part(rows, columns) / self._precision.diagonal[rows, None]
        return weights.masked_fill_((to[:, None] < 0) | (of < 0) | (to[:, None] == of), 0)

    def _columns(self, movies: torch.Tensor) -> torch.Tensor:
        """``[K]`` columns of the movies at these positions; -1 without one."""
        if self._movies is None:
            return movies
        found = torch.searchsorted(self._movies, movies).clamp(max=len(self._movies) - 1)
        return torch.where(self._movies[found] == movies, found, -1)

    def _of_all_movies(self, columns: torch.Tensor, absent: float | None = None) -> torch.Tensor:
        """``[B, C'] -> [B, M]``; without a column: ``absent``, or each row's lowest value."""
        if self._movies is None:
            return columns
        lowest = columns.min(dim=1, keepdim=True).values if absent is None else absent
        result = torch.zeros(len(columns), self._num_movies) + lowest
        result[:, self._movies] = columns
        return result

    def _column(self, movie: int) -> int | None:
        found = int(self._columns(torch.tensor([movie]))[0])
        return None if found < 0 else found


def _times(rows: sparse.csr_array, table: torch.Tensor) -> torch.Tensor:
    """``[B, C], [C, D] -> [B, D]``, from the entries of ``rows`` alone."""
    return functional.embedding_bag(
        torch.from_numpy(rows.indices.astype(np.int64)),
        table,
        torch.from_numpy(rows.indptr.astype(np.int64)),
        mode="sum",
        per_sample_weights=torch.from_numpy(rows.data),
        include_last_offset=True,
    )


def _add(rows: sparse.csr_array, to: torch.Tensor) -> torch.Tensor:
    """``to: [B, C]``, changed in place."""
    users = np.repeat(np.arange(len(to)), np.diff(rows.indptr))
    at = torch.from_numpy(users), torch.from_numpy(rows.indices.astype(np.int64))
    to[at] += torch.from_numpy(rows.data)
    return to


class EasePath:
    """EASE for any ridge, from one decomposition.

    Args:
        train: training ratings.
        preprocessor: has the movies' content.
        config: of ``ridges`` only the number is used.
    """

    def __init__(self, train: Interactions, preprocessor: Preprocessor, config: EaseConfig) -> None:
        self._inputs = EaseInputs.of(train, config)
        self._num_movies = train.num_movies
        self._movies: torch.Tensor | None = None
        rows = self._inputs.movies(train), self._inputs.context(train).numpy()
        weights = np.sqrt(user_weights(train, config.user_half_life_years))[:, None]
        of_users = sparse.csr_array(rows[0] * weights), rows[1] * weights
        content = _content_rows(preprocessor, config)
        num_rows = len(train) + len(content)
        is_capped = train.num_movies > config.max_movies
        if prefers_dual(num_rows, train.num_movies, len(config.ridges), is_capped=is_capped):
            self._decomposition: Decomposition = _Dual(_dense(*of_users, content))
        else:
            self._movies = _most_rated(train, config.max_movies)
            wanted = slice(None) if self._movies is None else self._movies.numpy()
            kept = of_users[0][:, wanted], of_users[1]
            self._decomposition = _Primal(_gram(*kept, content[:, wanted]))

    def at(self, ridge: float) -> Ease:
        """The model with this ridge."""
        precision = self._decomposition.precision(ridge)
        return Ease(self._inputs, precision, self._num_movies, self._movies)

    def each(self) -> Iterator[Ease]:
        """The models with the configured ridges, in their order."""
        for ridge in self._inputs.config.ridges:
            yield self.at(ridge)


def prefers_dual(num_rows: int, num_movies: int, num_ridges: int, *, is_capped: bool) -> bool:
    """Whether to decompose A Aᵀ, once for all ridges, rather than to invert AᵀA for each of them.

    If the latter leaves movies out, the former is taken unless it is the larger one.
    """
    if num_rows > num_movies or is_capped:
        return num_rows <= num_movies
    return _EIGENVECTORS * num_rows**3 <= num_ridges * num_movies**3


def _content_rows(preprocessor: Preprocessor, config: EaseConfig) -> np.ndarray:
    """``[F, M]``."""
    rows: list[np.ndarray] = [np.zeros((0, len(preprocessor.movies)))]
    if config.content:
        rows.append(config.content * content_columns(preprocessor).T)
    if config.names:
        rows.append(config.names * name_columns(preprocessor.movies).T)
    return np.concatenate(rows)


def _most_rated(train: Interactions, at_most: int) -> torch.Tensor | None:
    """Positions of so many movies with the most ratings; None if there are not more."""
    if train.num_movies <= at_most:
        return None
    order = np.argsort(-train.movie_counts(), kind="stable")[:at_most]
    return torch.from_numpy(np.sort(order))


def _dense(movies: sparse.csr_array, context: np.ndarray, content: np.ndarray) -> torch.Tensor:
    """``A: [B + F, M + c]``."""
    of_users = np.concatenate([movies.toarray(), context], axis=1)
    of_content = np.concatenate([content, np.zeros((len(content), context.shape[1]))], axis=1)
    return torch.from_numpy(np.concatenate([of_users, of_content]).astype(np.float64))


def _gram(movies: sparse.csr_array, context: np.ndarray, content: np.ndarray) -> torch.Tensor:
    """``AᵀA: [M + c, M + c]`` without the whole of A in memory."""
    num_movies = movies.shape[1]
    size = num_movies + context.shape[1]
    gram = np.empty((size, size))
    gram[:num_movies, :num_movies] = (movies.T @ movies).toarray() + content.T @ content
    gram[:num_movies, num_movies:] = movies.T @ context
    gram[num_movies:, :num_movies] = gram[:num_movies, num_movies:].T
    gram[num_movies:, num_movies:] = context.T @ context
    return torch.from_numpy(gram)
