"""Losses of the choice network: what a training step minimises, beside L2 penalties.

A new loss is a subclass of ``ChoiceLoss`` and a line of ``ncf.registry.CHOICE_LOSSES``.

Losses other than ``softmax`` compare choices with drawn movies. For each user of a batch
``negatives`` movies are drawn, and all users of a worker's batch share them: the logits of shared
movies are a product of matrices, while those of each choice's own draws would need a vector for
each of them. A movie that the user has rated is none of the user's negatives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final

import numpy as np
import torch
from torch.nn import functional

from ncf.choice_config import NetworkConfig
from ncf.data.preprocessor import Integers
from ncf.models.choice.network import Logits
from ncf.registry import CHOICE_LOSSES, implementation
from ncf.training.choice.batches import ChoiceBatch
from ncf.training.choice.negatives import Drawn, Sampler

_LOWEST: Final = -1e9
"""Logit of a movie that takes no part: finite, since a row may have no others."""


class ChoiceLoss(ABC):
    """The loss of each choice, and their weighted sum.

    Args:
        config: ``negatives``.
        counts: ``[M]`` numbers of training ratings.
        device: of the batches.
    """

    def __init__(self, config: NetworkConfig, counts: Integers, device: torch.device) -> None:
        self.num_negatives = config.negatives
        self.num_movies = len(counts)

    def draw(self, batch: ChoiceBatch, rng: np.random.Generator) -> Drawn | None:
        """Movies that the choices of ``batch`` are compared with; None stands for all movies."""
        return None

    @abstractmethod
    def of_choices(self, logits: Logits, batch: ChoiceBatch, drawn: Drawn | None) -> torch.Tensor:
        """``[T]`` the loss of each choice; may overwrite ``logits.candidates``.

        Args:
            logits: of the choices, and of ``drawn.movies`` or of all movies.
            batch: the users.
            drawn: what ``draw`` returned.
        """

    def total(self, logits: Logits, batch: ChoiceBatch, drawn: Drawn | None) -> torch.Tensor:
        """Sum of weight * loss over the choices, divided by the users of the whole batch: summed
        over all workers it is a user's mean loss."""
        return (batch.weights * self.of_choices(logits, batch, drawn)).sum() / batch.num_users


def get_loss(config: NetworkConfig, counts: Integers, device: torch.device) -> ChoiceLoss:
    """The loss that ``choice.network.loss`` names; takes what ``ChoiceLoss`` takes."""
    loss: ChoiceLoss = implementation(CHOICE_LOSSES[config.loss])(config, counts, device)
    return loss


class Softmax(ChoiceLoss):
    """Negative log-likelihood of each choice among all movies that are not known."""

    def of_choices(self, logits: Logits, batch: ChoiceBatch, drawn: Drawn | None) -> torch.Tensor:
        """``[T]``."""
        known = (batch.known_rows, batch.known.movies)
        # In place: the logits are the largest tensor of a step.
        others = logits.candidates.index_put_(known, logits.candidates.new_tensor(_LOWEST))
        return others.logsumexp(dim=1).index_select(0, batch.choices.rows) - logits.choices


class SampledLoss(ChoiceLoss):
    """A loss that compares choices with drawn movies."""

    power: ClassVar[float]
    """Movies are drawn in proportion to this power of their number of ratings."""
    draws_for_choices: ClassVar[bool] = False
    """Whether each choice is compared with ``negatives`` of the draws instead of all of them."""

    def __init__(self, config: NetworkConfig, counts: Integers, device: torch.device) -> None:
        super().__init__(config, counts, device)
        self._sampler = Sampler(counts, self.power, device)

    def draw(self, batch: ChoiceBatch, rng: np.random.Generator) -> Drawn:
        """``negatives`` draws for each user."""
        size = self.num_negatives * max(1, len(batch))
        per_choice = self.num_negatives if self.draws_for_choices else 0
        return self._sampler.draw(batch, size, per_choice, rng)

    def of_choices(self, logits: Logits, batch: ChoiceBatch, drawn: Drawn | None) -> torch.Tensor:
        """``[T]``."""
        assert drawn is not None
        return self.compared(logits, batch, drawn)

    @abstractmethod
    def compared(self, logits: Logits, batch: ChoiceBatch, drawn: Drawn) -> torch.Tensor:
        """``[T]`` as ``of_choices``."""


class SampledSoftmax(SampledLoss):
    """The softmax, with an estimate of the sum over all movies.

    The user's own choices are summed as they are. Movies that the user has not rated are estimated
    from the draws, each divided by the number of draws expected of it. After Bengio and Senécal,
    2008, https://doi.org/10.1109/TNN.2007.912312.
    """

    power = 0.75

    def compared(self, logits: Logits, batch: ChoiceBatch, drawn: Drawn) -> torch.Tensor:
        """``[T]``."""
        weighted = logits.candidates + (drawn.log_counts - drawn.log_expected)
        of_drawn = weighted.masked_fill(drawn.is_rated, _LOWEST).logsumexp(dim=1)
        of_choices = _grouped_logsumexp(logits.choices, batch.choices.rows, len(batch))
        normaliser = torch.logaddexp(of_drawn, of_choices)
        return normaliser.index_select(0, batch.choices.rows) - logits.choices


class BPR(SampledLoss):
    """Bayesian personalised ranking, Rendle et al., 2009, https://arxiv.org/abs/1205.2618: mean
    negative log-likelihood of the choice being preferred to each of ``negatives`` draws.

    Popular movies are drawn more often, as rare ones are seldom close to a choice. Logits are
    corrected for it: without, the score of a movie would be relative to its popularity.
    """

    power = 0.75
    draws_for_choices = True

    def compared(self, logits: Logits, batch: ChoiceBatch, drawn: Drawn) -> torch.Tensor:
        """``[T]``."""
        of_choices = self._sampler.log_probabilities.index_select(0, batch.choices.movies)
        negatives, is_negative = _for_choices(
            logits.candidates - self._sampler.log_probabilities[drawn.movies], batch, drawn
        )
        margins = (logits.choices - of_choices)[:, None] - negatives
        losses = functional.softplus(-margins) * is_negative
        return losses.sum(dim=1) / is_negative.sum(dim=1).clamp(min=1)


class WARP(SampledLoss):
    """Weighted approximate-rank pairwise loss, Weston et al., 2011,
    https://www.ijcai.org/Proceedings/11/Papers/460.pdf.

    Up to ``negatives`` movies are drawn until one of them scores less than 1 below the choice. Its
    hinge loss is weighted by 1 + 1/2 + ... + 1/r, where r estimates the choice's rank: movies over
    draws. The weight is divided by its maximum, which makes L2 penalties mean about the same as
    with other losses.
    """

    power = 0.0
    draws_for_choices = True

    def __init__(self, config: NetworkConfig, counts: Integers, device: torch.device) -> None:
        super().__init__(config, counts, device)
        self._num_others = max(1, self.num_movies - 1)
        sums = np.cumsum(1 / np.arange(1, self._num_others + 1))
        self._weights = torch.from_numpy(sums / sums[-1]).float().to(device)

    def compared(self, logits: Logits, batch: ChoiceBatch, drawn: Drawn) -> torch.Tensor:
        """``[T]``."""
        negatives, is_negative = _for_choices(logits.candidates, batch, drawn)
        hinges = (1 - logits.choices[:, None] + negatives).clamp(min=0) * is_negative
        # The first of several largest values.
        first = (hinges > 0).byte().argmax(dim=1, keepdim=True)
        num_draws = is_negative.cumsum(dim=1).gather(1, first).squeeze(1).clamp(min=1)
        rank = (self._num_others // num_draws).clamp(min=1)
        # Without a violation the hinge is 0.
        return self._weights[rank - 1] * hinges.gather(1, first).squeeze(1)


class BCE(SampledLoss):
    """Binary cross-entropy, as in He et al., 2017, https://doi.org/10.1145/3038912.3052569: of each
    choice, and ``negatives`` times the mean over the draws.

    A constant is added to logits so that before training, when they are popularities, probabilities
    are those of the movies' popularities. It cannot be learned: L2 penalties hold biases back.
    """

    power = 0.0

    def __init__(self, config: NetworkConfig, counts: Integers, device: torch.device) -> None:
        super().__init__(config, counts, device)
        logarithms = np.log(counts + 0.5)
        log_normaliser = np.logaddexp.reduce(logarithms - logarithms.mean())
        self._offset = float(np.log(self.num_movies / self.num_negatives) - log_normaliser)

    def compared(self, logits: Logits, batch: ChoiceBatch, drawn: Drawn) -> torch.Tensor:
        """``[T]``."""
        counts = drawn.log_counts.exp() * ~drawn.is_rated
        sums = (functional.softplus(logits.candidates + self._offset) * counts).sum(dim=1)
        of_users = self.num_negatives * sums / counts.sum(dim=1).clamp(min=1)
        of_choices = functional.softplus(-(logits.choices + self._offset))
        return of_choices + of_users.index_select(0, batch.choices.rows)


def _grouped_logsumexp(values: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """``values: [T]`` of ``rows: [T]`` -> ``[R]``; every row must have a value."""
    with torch.no_grad():
        largest = values.new_full((num_rows,), -torch.inf)
        largest = largest.scatter_reduce(0, rows, values, "amax")
    shares = (values - largest.index_select(0, rows)).exp()
    return torch.zeros_like(largest).index_add(0, rows, shares).log() + largest


def _for_choices(
    candidates: torch.Tensor, batch: ChoiceBatch, drawn: Drawn
) -> tuple[torch.Tensor, torch.Tensor]:
    """``candidates: [B, C]`` -> ``[T, K]`` those of each choice's draws, and whether each is a
    negative of the user."""
    at = batch.choices.rows[:, None] * candidates.shape[1] + drawn.of_choices
    values = candidates.flatten().index_select(0, at.flatten()).view(at.shape)
    return values, ~drawn.is_rated.flatten()[at]
