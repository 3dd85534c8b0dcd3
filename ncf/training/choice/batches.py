"""Batches of users with known ratings and the choices to predict from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from ncf.choice_config import NetworkConfig, ValuesConfig
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Integers
from ncf.data.sampling import SINGLE_WORKER, Shard
from ncf.models.choice.network import ChoiceNetwork, Choices, KnownRatings
from ncf.models.choice.values import rating_values
from ncf.training.choice.masks import Mask, known_ratings

MIN_RATINGS: Final = 2
"""Users with fewer have no rating to know beside the one to predict."""

_ORDER, _MASKS, _NEGATIVES = range(3)
"""Random streams of an epoch."""


@dataclass(frozen=True)
class ChoiceBatch:
    """One worker's B users of a training batch."""

    known: KnownRatings
    """Known ratings."""
    choices: Choices
    """The T other ratings of these users."""
    weights: torch.Tensor
    """``[T]`` loss weights of the choices."""
    num_users: int
    """Users of the whole batch, over all workers."""

    def __len__(self) -> int:
        """B."""
        return len(self.known.users)

    @property
    def known_rows(self) -> torch.Tensor:
        """``[H]`` position of each known rating's user in the batch."""
        rows = torch.arange(len(self), device=self.known.starts.device)
        size = len(self.known.movies)
        return torch.repeat_interleave(rows, self.known.starts.diff(), output_size=size)


class ChoiceBatches:
    """The batches of each epoch: the same users for any number of workers, with the same masks.

    All randomness of an epoch follows from the seed and the epoch's number, so that no state of a
    generator needs to be kept.

    Args:
        train: training ratings.
        network: whose inputs the batches are, on its device.
        config: seed, size and weights.
        mask: how ratings are divided.
        shard: this worker's part of each batch's users.
    """

    def __init__(
        self,
        train: Interactions,
        network: ChoiceNetwork,
        config: NetworkConfig,
        mask: Mask,
        shard: Shard = SINGLE_WORKER,
    ) -> None:
        self._train = train
        self._network = network
        self._config = config
        self._mask: Mask = mask
        self._shard = shard
        self._values = _values(train, config)
        self._users = np.flatnonzero(train.counts >= MIN_RATINGS)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-self.num_users // self._config.batch_users)

    @property
    def num_users(self) -> int:
        """Users of an epoch: those with ``MIN_RATINGS`` or more."""
        return len(self._users)

    @property
    def penalty_scale(self) -> float:
        """By what an L2 penalty is multiplied to be in proportion to the loss of a batch: about the
        sum of a user's weights in it, over the number of training ratings."""
        num_ratings = int(self._train.counts[self._users].sum())
        mean_choices = num_ratings / max(1, self.num_users) / 2
        weight = mean_choices ** (1 - self._config.user_power)
        return float(weight) / max(1, self._train.num_ratings)

    def of_epoch(self, number: int) -> Iterator[ChoiceBatch]:
        """This worker's part of the batches of an epoch."""
        order = self._stream(number, _ORDER).permutation(self._users)
        masks = self._stream(number, _MASKS)
        size = self._config.batch_users
        for start in range(0, len(order), size):
            yield self._batch(np.sort(order[start : start + size]), masks)

    def negatives(self, number: int) -> np.random.Generator:
        """What draws negatives in an epoch, for this worker."""
        return self._stream(number, _NEGATIVES, self._shard.rank)

    def _stream(self, epoch: int, *which: int) -> np.random.Generator:
        return np.random.default_rng((self._config.seed, epoch, *which))

    def _batch(self, users: Integers, masks: np.random.Generator) -> ChoiceBatch:
        """For ``users``, positions in ascending order."""
        ratings, _ = _of_users(self._train, users)
        # Drawn for the whole batch, so that masks do not depend on the number of workers.
        is_known = known_ratings(ratings, self._mask, masks)
        rank, world_size = self._shard.rank, self._shard.world_size
        is_known = is_known[ratings.rows % world_size == rank]
        ratings, taken = _of_users(self._train, users[rank::world_size])
        choices = ratings.where(~is_known)
        rows = choices.rows
        weights = self._values[taken][~is_known]
        weights = weights / choices.counts[rows] ** self._config.user_power
        device = self._network.device
        return ChoiceBatch(
            known=self._network.inputs(ratings.where(is_known)),
            choices=Choices(
                torch.from_numpy(rows).to(device),
                torch.from_numpy(choices.movies.astype(np.int64)).to(device),
            ),
            weights=torch.from_numpy(weights.astype(np.float32)).to(device),
            num_users=len(users),
        )


def _values(train: Interactions, config: NetworkConfig) -> np.ndarray:
    """``[N]`` weights of ratings by their stars."""
    mean = float(train.ratings.mean()) if train.num_ratings else 0.0
    return rating_values(train, ValuesConfig(stars=config.stars), mean)


def _of_users(ratings: Interactions, positions: Integers) -> tuple[Interactions, Integers]:
    """The ratings of users at ascending ``positions``, and where they were, ``[n]``."""
    counts = ratings.counts[positions]
    starts = np.concatenate([[0], np.cumsum(counts)])
    taken = np.arange(starts[-1]) + np.repeat(ratings.starts[positions] - starts[:-1], counts)
    subset = replace(
        ratings,
        users=ratings.users[positions],
        starts=starts,
        movies=ratings.movies[taken],
        ratings=ratings.ratings[taken],
        times=ratings.times[taken],
    )
    return subset, taken
