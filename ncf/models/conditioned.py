"""A network together with the rating histories that its predictions are conditioned on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ncf.config import ModelConfig
from ncf.data.batches import TrainingBatch
from ncf.data.sampling import TrainingRows
from ncf.models.history.ratings import History, Ratings
from ncf.models.ncf import NCF

_ROWS_AT_ONCE = 8192
"""History rows in one forward pass."""
_MOST_USERS_ALONE = 8
"""Users who are solved for one by one; with more, all users are, in large batches."""


@dataclass(frozen=True)
class _Solution:
    """Weights of the ratings of those users for whom they were solved for."""

    weights: torch.Tensor
    """``[N]``"""
    is_known: torch.Tensor
    """``[U + 1]`` by user index."""

    @classmethod
    def none(cls, history: History) -> _Solution:
        """Before any user's weights were solved for."""
        users = torch.zeros(len(history.starts) - 1, dtype=torch.bool, device=history.starts.device)
        return cls(torch.zeros_like(history.targets), users)


class ConditionedModel:
    """Conditions a prediction on the user's rating history.

    The history is as much a part of the model as the network's weights. A network without history
    encoders needs none, and its predictions are those of the network.
    """

    def __init__(self, network: NCF, history: History | None = None) -> None:
        """``history`` is that of the training rows, if it is there; it must be on the device of
        ``network``."""
        self.network = network
        self._history = history
        self._solution: _Solution | None = None

    @property
    def config(self) -> ModelConfig:
        """Settings of the network."""
        return self.network.config

    @property
    def uses_history(self) -> bool:
        """Whether predictions depend on other ratings of the user."""
        return self.network.uses_history

    @property
    def uses_time(self) -> bool:
        """Whether predictions depend on the time of the rating."""
        return self.network.uses_time

    @property
    def has_attributions(self) -> bool:
        """Whether the network has a Gaussian process, whose terms ``attributions`` returns."""
        return self.network.gaussian_process is not None

    @property
    def is_additive(self) -> bool:
        """Whether a prediction is the sum of its terms; with the ordinal head it is not."""
        return self.network.head is None

    @property
    def history(self) -> History | None:
        """The ratings that predictions are conditioned on."""
        return self._history

    def fit_history(self, rows: TrainingRows) -> None:
        """Condition on the training rows from now on.

        Raises:
            TypeError: if the model ``uses_history`` and the rows are not in memory.
        """
        self.network.fit_rows(rows)
        if self.uses_history:
            max_ratings = self.config.history.max_ratings
            self.set_history(History.of(all_in_memory(rows), self.network.num_users, max_ratings))

    def set_history(self, history: History) -> None:
        """Condition on ``history`` from now on."""
        self._history = history
        self._solution = None

    def train(self) -> ConditionedModel:
        """Put the network into training mode."""
        return self._set_mode(training=True)

    def eval(self) -> ConditionedModel:
        """Put the network into evaluation mode; call this whenever its weights have changed."""
        return self._set_mode(training=False)

    def _set_mode(self, *, training: bool) -> ConditionedModel:
        self._solution = None  # depends on the weights
        self.network.train(training)
        return self

    def outputs(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What ``NCF.forward`` returns, conditioned on the users' histories.

        Raises:
            ValueError: if the model ``uses_time`` and there are no times.
            RuntimeError: if the model ``uses_history`` and has none.
        """
        if not self.uses_history:
            return self.network(users, movies, times)
        rows = self.network.rated(movies, times)
        numbers = self.network.base(users, movies, times, self._encoded(users, rows))
        if self.network.gaussian_process is not None:
            numbers = numbers + self.posterior(users, rows)
        return self.network.outputs(numbers)

    def expected_ratings(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B]`` predictions in the training target's unit; takes what ``outputs`` takes."""
        return self.network.expected_rating(self.outputs(users, movies, times))

    def terms(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The terms of the predictions without the Gaussian process, ``[B]`` each, by name.

        ``network`` includes the mean rating. Users, movies and times are those of ``outputs``.
        """
        encoded = None
        if self.uses_history:
            encoded = self._encoded(users, self.network.rated(movies, times))
        return self.network.terms(users, movies, times, encoded)

    def posterior(self, users: torch.Tensor, rows: Ratings) -> torch.Tensor:
        """The term of the Gaussian process, from the users' histories: ``[B], [B] -> [B]``."""
        assert self.network.gaussian_process is not None
        history = self.required_history()
        return self.network.gaussian_process.posterior(
            users, rows, history.ratings(), self._solved(users), history.starts
        )

    def attributions(self, user: int, rows: Ratings) -> torch.Tensor:
        """The terms of the ``posterior``, one for each rating of the user's history.

        ``rows: [Q]`` -> ``[Q, L]``, with the L ratings in the order of ``history``.
        """
        assert self.network.gaussian_process is not None
        history = self.required_history()
        of_user = history.rows_of(user)
        ratings = history.ratings()
        covariance = self.network.gaussian_process.kernel(
            Ratings(rows.movies[None], rows.days[None]),
            Ratings(ratings.movies[None, of_user], ratings.days[None, of_user]),
        )[0]
        return covariance * self._solved(torch.tensor([user]))[of_user]

    def deviations(self, user: int, rows: Ratings) -> torch.Tensor:
        """Posterior standard deviations of the Gaussian process, ``rows: [Q]`` -> ``[Q]``.

        In the training target's unit, without the noise of a rating. Training by leave-one-out
        errors leaves their scale free, so they compare movies, and are no calibrated intervals.
        """
        assert self.network.gaussian_process is not None
        history = self.required_history()
        of_user = history.ratings()[history.rows_of(user)]
        return self.network.gaussian_process.variances(rows, of_user).sqrt()

    def fold_in(self, rows: TrainingRows) -> ConditionedModel:
        """A model whose history is ``rows``, all of user index 0; it shares the weights.

        It has no vector and no bias for the user, as these take training: all that its predictions
        know of the user comes from these ratings.
        """
        result = ConditionedModel(self.network.with_own_buffers())
        result.fit_history(rows)
        return result

    def _encoded(self, users: torch.Tensor, rows: Ratings) -> torch.Tensor | None:
        """``[B, W]`` outputs of the history encoders, if there are any."""
        if self.network.history_inputs is None:
            return None
        return self.network.history_inputs.from_history(users, rows, self.required_history())

    def _solved(self, users: torch.Tensor) -> torch.Tensor:
        """``[N]`` weights of the ratings in the posterior; right for those of ``users`` at least.

        For few users, as in a query, only theirs are solved for.
        """
        history = self.required_history()
        if self._solution is None:
            self._solution = _Solution.none(history)
        solution = self._solution
        wanted = torch.unique(users.long().to(solution.is_known.device))
        unknown = wanted[~solution.is_known[wanted]]
        if len(unknown) > _MOST_USERS_ALONE or self.network.history_inputs is not None:
            solution.weights.copy_(self._solve(history))
            solution.is_known.fill_(True)
        else:
            for user in unknown.tolist():
                rows = history.rows_of(user)
                solution.weights[rows] = self._solve(history.of_user(user))
                solution.is_known[user] = True
        return solution.weights

    @torch.no_grad()
    def _solve(self, history: History) -> torch.Tensor:
        """``[N]`` weights of all ratings of ``history``."""
        assert self.network.gaussian_process is not None
        residuals = history.targets - self._history_base(history)
        return self.network.gaussian_process.solve(history.ratings(), residuals, history.starts)

    def _history_base(self, history: History) -> torch.Tensor:
        """``[N]`` predictions for the history's rows, without the Gaussian process."""
        network, users, encoded = self.network, history.users, None
        if network.history_inputs is not None:
            encoded = network.history_inputs.within_groups(
                history.ratings(), history.targets, history.starts
            )
        parts = torch.arange(len(users), device=users.device).split(_ROWS_AT_ONCE)
        return torch.cat(
            [
                network.base(
                    users[part],
                    history.movies[part],
                    history.times[part],
                    None if encoded is None else encoded[part],
                )
                for part in parts
            ]
        )

    def required_history(self) -> History:
        """The history.

        Raises:
            RuntimeError: if there is none.
        """
        if self._history is None:
            raise RuntimeError(
                "the model has no history: call fit_history() or set_history() first"
            )
        return self._history


def all_in_memory(rows: TrainingRows) -> TrainingBatch:
    """All training rows, for a model that ``uses_history``.

    Raises:
        TypeError: if they are streamed.
    """
    batch = rows.in_memory()
    if batch is None:
        raise TypeError(
            "a model with history encoders needs all of them in memory: it learns from a user's "
            "other training rows, and these rows are streamed"
        )
    return batch
