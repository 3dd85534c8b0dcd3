"""Movies drawn by their popularity, which choices are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ncf.data.preprocessor import Integers
from ncf.training.choice.batches import ChoiceBatch


@dataclass(frozen=True)
class Drawn:
    """S draws with replacement, which all users of a batch share; C distinct movies."""

    movies: torch.Tensor
    """``[C]`` positions in the movie table."""
    log_counts: torch.Tensor
    """``[C]`` logarithm of how often each was drawn."""
    log_expected: torch.Tensor
    """``[C]`` logarithm of how often each is drawn on average."""
    is_rated: torch.Tensor
    """``[B, C]`` whether the user has rated it: it is no negative of that user."""
    of_choices: torch.Tensor
    """``[T, K]`` positions in ``movies`` of K draws for each choice."""


class Sampler:
    """Draws movies in proportion to a power of their number of ratings.

    Args:
        counts: ``[M]`` numbers of training ratings. A movie without any counts as half a rating.
        power: with 0 all movies are drawn alike.
        device: of the batches.
    """

    def __init__(self, counts: Integers, power: float, device: torch.device) -> None:
        weights = (counts + 0.5) ** power
        self._cumulative = np.cumsum(weights)
        self.log_probabilities = torch.from_numpy(np.log(weights / weights.sum())).float()
        """``[M]`` logarithm of each movie's probability."""
        self.log_probabilities = self.log_probabilities.to(device)

    def draw(
        self, batch: ChoiceBatch, size: int, per_choice: int, rng: np.random.Generator
    ) -> Drawn:
        """``size`` draws for the users of a batch, and of these ``per_choice`` for each choice."""
        numbers = rng.random(size) * self._cumulative[-1]
        drawn = np.searchsorted(self._cumulative, numbers, side="right")
        # Rounding may make a number the sum of all.
        drawn = np.minimum(drawn, len(self._cumulative) - 1)
        distinct, positions, counts = np.unique(drawn, return_inverse=True, return_counts=True)
        picked = rng.integers(0, size, (len(batch.weights), per_choice))
        device = batch.weights.device
        movies = torch.from_numpy(distinct).to(device)
        return Drawn(
            movies=movies,
            log_counts=torch.from_numpy(np.log(counts)).float().to(device),
            log_expected=self.log_probabilities[movies] + float(np.log(size)),
            is_rated=_is_rated(batch, movies, len(self._cumulative)),
            of_choices=torch.from_numpy(positions[picked]).to(device),
        )


def _is_rated(batch: ChoiceBatch, movies: torch.Tensor, num_movies: int) -> torch.Tensor:
    """``[B, C]`` for distinct ``movies: [C]``."""
    # Ratings of other movies go to one more column, for which the host need not wait.
    column = torch.full((num_movies,), len(movies), device=movies.device)
    column[movies] = torch.arange(len(movies), device=movies.device)
    result = torch.zeros(len(batch), len(movies) + 1, dtype=torch.bool, device=movies.device)
    result[batch.known_rows, column[batch.known.movies]] = True
    result[batch.choices.rows, column[batch.choices.movies]] = True
    return result[:, :-1]
