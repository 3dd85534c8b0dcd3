"""Predictions for all pairs of some users and all movies; what pairs share is computed once.

The first dense layer is linear in its inputs, so its output for a pair is the sum of a term of the
user and a term of the movie. Biases and matrix factorisation are separated in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, cast

import torch
from torch import nn

from ncf.models.conditioned import ConditionedModel
from ncf.models.history.ratings import Ratings

_TILE: Final = 2048
"""Pairs that go through the dense layers together. Memory traffic bounds this: with tiles whose
activations do not fit the cache, everything takes twice as long."""


class AllPairs(Protocol):
    """Predicts all pairs."""

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """``users: [B]`` -> ``[B, M]`` in the training target's unit."""


def all_pairs(model: ConditionedModel, num_movies: int, today: int) -> AllPairs:
    """The fastest way for this model: from separate terms if possible, else pair by pair.

    Args:
        model: in evaluation mode; its weights must not change while the result is in use.
        num_movies: M, the size of the movie table.
        today: time of the predictions in seconds since 1970 UTC, for a model that ``uses_time``.
    """
    network = model.network
    is_separable = network.config.fusion == "concat" and all(
        part.depends_on != "both" and not part.uses_time for part in network.inputs.values()
    )
    if is_separable and network.config.hidden_dims and network.history_inputs is None:
        return _FromTerms(model, num_movies, today)
    return _PairByPair(model, num_movies, today)


class _PairByPair:
    """Predicts every pair as a row of its own."""

    def __init__(self, model: ConditionedModel, num_movies: int, today: int) -> None:
        self._model = model
        self._movies = torch.arange(num_movies)
        self._today = today

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """``[B] -> [B, M]``."""
        pair_users, pair_movies = _pairs(users, self._movies)
        today = torch.full_like(pair_movies, self._today)
        ratings = self._model.expected_ratings(pair_users, pair_movies, today)
        return ratings.reshape(len(users), -1)


class _FromTerms:
    """Adds a term of the user and a term of the movie before the first activation."""

    def __init__(self, model: ConditionedModel, num_movies: int, today: int) -> None:
        network = model.network
        first = cast(nn.Linear, network.hidden[0])
        inputs = network.config.inputs
        blocks = first.weight.split(network.config.embedding_dim, dim=1)
        self._model = model
        self._network = network
        self._weights = dict(zip(inputs, blocks, strict=True))
        self._deeper = network.hidden[1:]
        self._movies = torch.arange(num_movies)
        self._today = today
        unknown = torch.zeros_like(self._movies)
        branches = network.inputs.items()
        movie_inputs = [name for name, part in branches if part.depends_on == "movie"]
        self._user_inputs = [name for name, part in branches if part.depends_on == "user"]
        self._movie_terms = first.bias + self._terms(movie_inputs, unknown, self._movies)  # [M, H]
        self._movie_biases = torch.zeros(num_movies)
        if network.biases is not None:
            self._movie_biases = network.biases(unknown, self._movies)  # index 0 has no bias
        if network.gmf is not None:
            self._gmf_movies = network.gmf.movies(self._movies) * network.gmf.output.weight

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """``[B] -> [B, M]``."""
        network = self._network
        # If no branch depends on the user, one row serves all.
        user_terms = self._movie_terms.new_zeros(1, 1)
        if self._user_inputs:
            user_terms = self._terms(self._user_inputs, users, torch.zeros_like(users))
        numbers = torch.stack([self._dense(term) for term in user_terms]) + self._movie_biases
        if network.biases is not None and network.biases.user is not None:
            numbers = numbers + network.biases.user(users)
        if network.gmf is not None:
            numbers = numbers + network.gmf.users(users) @ self._gmf_movies.T
        numbers = numbers.expand(len(users), -1)
        if network.gaussian_process is not None:
            numbers = numbers + self._posterior(users).reshape(numbers.shape)
        outputs = network.outputs(numbers.flatten())
        return network.expected_rating(outputs).reshape(numbers.shape)

    def _posterior(self, users: torch.Tensor) -> torch.Tensor:
        """``[B] -> [B * M]`` terms of the Gaussian process."""
        pair_users, pair_movies = _pairs(users, self._movies)
        today = torch.full_like(pair_movies, self._today)
        return self._model.posterior(pair_users, Ratings.of(pair_movies, today))

    def _dense(self, user_term: torch.Tensor) -> torch.Tensor:
        """Outputs of the dense layers for one user: ``[H]`` -> ``[M]``."""
        tiles = (self._deeper(user_term + tile) for tile in self._movie_terms.split(_TILE))
        return torch.cat([self._network.output(hidden).squeeze(1) for hidden in tiles])

    def _terms(
        self, inputs: Sequence[str], users: torch.Tensor, movies: torch.Tensor
    ) -> torch.Tensor:
        """``[N], [N] -> [N, H]`` terms of these branches in the first dense layer's output."""
        if not inputs:
            return self._weights[self._network.config.inputs[0]].new_zeros(len(users), 1)
        vectors = [self._network.branches[name](users, movies, None) for name in inputs]
        weights = [self._weights[name] for name in inputs]
        return torch.cat(vectors, dim=1) @ torch.cat(weights, dim=1).T


def _pairs(users: torch.Tensor, movies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pair, user by user: ``[B], [M] -> [B * M], [B * M]``."""
    return users.repeat_interleave(len(movies)), movies.repeat(len(users))
