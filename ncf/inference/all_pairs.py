"""Predictions for every pair of some users and all movies, with what pairs share computed once.

The first dense layer is linear in its inputs, so its output for a pair is a part of the user's plus
a part of the movie's; biases and factors come apart in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import torch
from torch import nn

from ncf.models.history.ratings import Ratings
from ncf.models.ncf import NCF

_TILE: Final = 2048
"""Pairs that go through the dense layers together. Memory traffic bounds this: with tiles whose
activations do not fit the cache, everything takes twice as long."""


class AllPairs(Protocol):
    """Predicts all pairs."""

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """``users: [B]`` -> ``[B, M]`` in the training target's unit."""


def all_pairs(model: NCF, num_movies: int, today: int) -> AllPairs:
    """The fastest way for this model: part by part where that is possible, else pair by pair.

    Args:
        model: in evaluation mode; its weights must not change while the result is in use.
        num_movies: M, the size of the movie table.
        today: seconds since 1970 UTC, for a model that looks at times.
    """
    config = model.config
    comes_apart = config.fusion == "concat" and all(
        part.depends_on != "both" and not part.uses_time for part in model.inputs.values()
    )
    if comes_apart and config.hidden_dims and model.history_inputs is None:
        return _ByParts(model, num_movies, today)
    return _ByPairs(model, num_movies, today)


class _ByPairs:
    def __init__(self, model: NCF, num_movies: int, today: int) -> None:
        self._model = model
        self._movies = torch.arange(num_movies)
        self._today = today

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """``[B] -> [B, M]``."""
        first, second = _pairs(users, self._movies)
        today = torch.full_like(second, self._today)
        outputs = self._model(first, second, today)
        return self._model.expected_rating(outputs).reshape(len(users), -1)


class _ByParts:
    def __init__(self, model: NCF, num_movies: int, today: int) -> None:
        first = model.hidden[0]
        assert isinstance(first, nn.Linear)
        inputs = model.config.inputs
        parts = first.weight.split(model.config.embedding_dim, dim=1)
        self._model = model
        self._weights = dict(zip(inputs, parts, strict=True))
        self._deeper = model.hidden[1:]
        self._movies = torch.arange(num_movies)
        self._today = today
        unknown = torch.zeros_like(self._movies)
        of_movies = [name for name, part in model.inputs.items() if part.depends_on == "movie"]
        self._of_users = [name for name, part in model.inputs.items() if part.depends_on == "user"]
        self._of_movies = first.bias + self._part(of_movies, unknown, self._movies)  # [M, H]
        self._movie_biases = torch.zeros(num_movies)
        if model.biases is not None:
            self._movie_biases = model.biases(unknown, self._movies)  # index 0 has no bias
        if model.gmf is not None:
            self._gmf = model.gmf.movies(self._movies) * model.gmf.output.weight

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """``[B] -> [B, M]``."""
        model, none = self._model, torch.zeros_like(users)
        # Where nothing depends on the user, one row serves all.
        mine = self._of_movies.new_zeros(1, 1)
        if self._of_users:
            mine = self._part(self._of_users, users, none)
        numbers = torch.stack([self._dense(part) for part in mine]) + self._movie_biases
        if model.biases is not None and model.biases.user is not None:
            numbers = numbers + model.biases.user(users)
        if model.gmf is not None:
            numbers = numbers + model.gmf.users(users) @ self._gmf.T
        numbers = numbers.expand(len(users), -1)
        if model.gaussian_process is not None:
            first, second = _pairs(users, self._movies)
            today = torch.full_like(second, self._today)
            posterior = model.posterior(first, Ratings.of(second, today))
            numbers = numbers + posterior.reshape(numbers.shape)
        return numbers if model.head is None else self._expected(numbers)

    def _dense(self, of_user: torch.Tensor) -> torch.Tensor:
        """What comes out of the dense layers for one user: ``[H]`` -> ``[M]``."""
        tiles = (self._deeper(of_user + tile) for tile in self._of_movies.split(_TILE))
        return torch.cat([self._model.output(hidden).squeeze(1) for hidden in tiles])

    def _expected(self, numbers: torch.Tensor) -> torch.Tensor:
        head = self._model.head
        assert head is not None
        return head.expectation(head(numbers.flatten())).reshape(numbers.shape)

    def _part(
        self, inputs: Sequence[str], users: torch.Tensor, movies: torch.Tensor
    ) -> torch.Tensor:
        """``[N], [N] -> [N, H]`` what these inputs add to the first dense layer's output."""
        if not inputs:
            return self._weights[self._model.config.inputs[0]].new_zeros(len(users), 1)
        vectors = [self._model.branches[name](users, movies, None) for name in inputs]
        weights = [self._weights[name] for name in inputs]
        return torch.cat(vectors, dim=1) @ torch.cat(weights, dim=1).T


def _pairs(users: torch.Tensor, movies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pair, user by user: ``[B], [M] -> [B * M], [B * M]``."""
    return users.repeat_interleave(len(movies)), movies.repeat(len(users))
