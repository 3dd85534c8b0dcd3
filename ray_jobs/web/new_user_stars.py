"""Predicted ratings for several new users at once, by the Gaussian process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch

from ncf.data.batches import Batch
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Integers
from ncf.inference.checkpoint import Checkpoint
from ncf.inference.explanations import Explanation
from ncf.models.conditioned import all_in_memory
from ncf.models.history.ratings import History, Ratings
from ncf.models.targets import Objective

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StarSums:
    """Predicted ratings of N movies for each of B users, as sums."""

    stars: Floats
    """``[B, N]`` within the range of the training ratings."""
    base: dict[str, Floats]
    """``[B, N]`` terms of the network, by name."""
    added: Floats
    """``[B, N, L]`` terms of the users' ratings; 0 after each user's last one."""
    history: History
    """The ratings, in this order."""
    are_sums: bool
    """Whether predictions are the sums; with the ordinal head they are not."""

    def explanations(self, row: int, movies: Integers, ids: Integers) -> Sequence[Explanation]:
        """Of the first ``movies: [K]``, positions, of one user; ``ids: [M]`` are of all movies."""
        own = self.history.rows_of(row)
        rated = ids[self.history.movies[own].numpy()]
        ratings = self.history.targets[own].numpy()
        added = self.added[row, :, : len(rated)]
        base = {name: part[row] for name, part in self.base.items()}
        return [
            Explanation(
                movie=int(ids[position]),
                prediction=float(sum(part[i] for part in base.values()) + added[i].sum()),
                base={name: float(part[i]) for name, part in base.items()},
                rated=rated,
                ratings=ratings,
                added=added[i],
            )
            for i, position in enumerate(movies)
        ]


class NewUserStars:
    """Predicts with a rating model for which ``takes`` is true; for one thread."""

    def __init__(self, rating_model: Checkpoint) -> None:
        network = rating_model.model.network
        self._network = network.with_own_buffers()
        self._preprocessor = rating_model.preprocessor
        experiment = rating_model.experiment
        self._objective = Objective(experiment.train, experiment.time_decay, self._preprocessor)
        self._max_ratings = network.config.history.max_ratings
        self.at_most = network.num_users + 1
        """Users at once: the network has room for the times of so many."""

    @staticmethod
    def takes(rating_model: Checkpoint) -> bool:
        """Whether predictions depend on a user through the Gaussian process and times alone.

        Vectors and biases of users would be those of training users with the same indices.
        """
        network = rating_model.model.network
        return (
            rating_model.blend is None
            and network.gaussian_process is not None
            and network.history_inputs is None
            and network.gmf is None
            and (network.biases is None or network.biases.user is None)
            and all(
                part.depends_on == "movie" or part.fitted_buffers()
                for part in network.inputs.values()
            )
        )

    @torch.inference_mode()
    def sums(self, known: Interactions, today: Integers, movies: Integers) -> StarSums:
        """Predictions of ``movies: [B, N]``, positions or -1, at ``today: [B]`` for B users.

        Args:
            known: the users' ratings, at least one of each.
            today: seconds since 1970 UTC.
            movies: what to predict.
        """
        network, gaussian_process = self._network, self._network.gaussian_process
        assert gaussian_process is not None
        history = self._fit(known)
        past = history.ratings()
        residuals = history.targets - network.base(history.users, history.movies, history.times)
        weights = gaussian_process.solve(past, residuals, history.starts)
        rows, mask = _padded(history.starts)
        wanted = torch.from_numpy(np.maximum(movies, 0))
        times = torch.from_numpy(today)[:, None]
        covariance = gaussian_process.kernel(Ratings.of(wanted, times), past[rows])
        added = covariance * (weights[rows] * mask)[:, None, :]
        asked = self._batch(wanted, times)
        base = network.terms(asked.users, asked.movies, asked.times)
        numbers = reduce(torch.add, base.values()) + added.sum(dim=2).flatten()
        predicted = network.expected_rating(network.outputs(numbers))
        return StarSums(
            stars=self._objective.stars(predicted, asked).reshape(wanted.shape).numpy(),
            base={name: part.reshape(wanted.shape).numpy() for name, part in base.items()},
            added=added.numpy(),
            history=history,
            are_sums=network.head is None,
        )

    def _fit(self, known: Interactions) -> History:
        """Condition the network's buffers on the users' ratings."""
        times = known.times.copy()
        rows = self._objective.training_rows(
            Batch(
                users=torch.from_numpy(known.rows.astype(np.int32)),
                movies=torch.from_numpy(known.movies),
                ratings=torch.from_numpy(known.ratings),
                weights=torch.from_numpy(self._preprocessor.decay_weight(times)),
                times=torch.from_numpy(times),
            )
        )
        self._network.fit_rows(rows)
        return History.of(all_in_memory(rows), len(known) - 1, self._max_ratings)

    def _batch(self, wanted: torch.Tensor, times: torch.Tensor) -> Batch:
        """A row for each of ``wanted: [B, N]`` at ``times: [B, 1]``."""
        seconds = times.expand_as(wanted).flatten()
        users = torch.arange(len(wanted), dtype=torch.int32)[:, None].expand_as(wanted)
        return Batch(
            users=users.flatten(),
            movies=wanted.int().flatten(),
            ratings=torch.zeros(wanted.numel()),
            weights=torch.from_numpy(self._preprocessor.decay_weight(seconds.numpy())),
            times=seconds,
        )


def _padded(starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[B, L]`` rows of each user, the last one repeated, and which of them are no padding."""
    counts = starts.diff()
    width = torch.arange(int(counts.max()))
    rows = starts[:-1, None] + torch.minimum(width, counts[:, None] - 1)
    return rows, width < counts[:, None]
