"""Neural Collaborative Filtering, after He et al., https://doi.org/10.1145/3038912.3052569.

::

    inputs, embedded -> put together -> dense layers -> one number    (model.inputs, fusion)
        + biases of user and movie                                    (model.biases)
        + products of a user's and a movie's vectors                  (model.gmf_dim)
        + what the user's other ratings say of what is left           (model.history)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import reduce

import torch
from torch import nn

from ncf.batches import Batch, Rows
from ncf.config import ModelConfig, TrainConfig
from ncf.fitted import FittedState
from ncf.fusion import fusion
from ncf.heads import OrdinalHead
from ncf.history import ClosedForm, History, HistoryInputs, Ratings
from ncf.layers import (
    BRANCHES,
    BatchNorm,
    Biases,
    ContentVector,
    Factors,
    MovieEmbedding,
    NameAverage,
    TimeFeatures,
    UserEmbedding,
)

_ROWS_AT_ONCE = 8192
"""History rows in one forward pass."""


class NCF(nn.Module):
    """The configured parts, added up to one number a row."""

    def __init__(self, config: ModelConfig, fitted: FittedState) -> None:
        """Build with random weights; seed torch first for repeatable ones."""
        super().__init__()
        self.config = config
        self._num_users = fitted.num_users
        self.branches = nn.ModuleDict(
            {name: BRANCHES[name](config, fitted) for name in config.inputs}
        )
        self.fusion = fusion(config)
        encoders = config.history.encoders
        self.closed_form = self.history_inputs = None
        if "closed-form" in encoders:
            self.closed_form = ClosedForm(config.history, fitted)
        if set(encoders) - {"closed-form"}:
            self.history_inputs = HistoryInputs(config.history, fitted)
        self.hidden, width = _dense_layers(
            config, self.history_inputs.width if self.history_inputs else 0
        )
        self.output = nn.Linear(width, 1)
        self.biases = Biases(config.biases, fitted) if config.biases else None
        self.factors = Factors(config, fitted) if config.gmf_dim else None
        self.head = OrdinalHead(fitted) if config.head == "ordinal" else None
        self.history: History | None = None
        """The ratings that predictions look at; part of the model as much as its weights."""
        self._solution: torch.Tensor | None = None

    @property
    def learns_in_groups(self) -> bool:
        """Whether training rows come in groups of one user's rows each."""
        return bool(self.config.history.encoders)

    def forward(
        self,
        users: torch.Tensor,
        movies: torch.Tensor,
        times: torch.Tensor | None = None,
        known: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Prediction in the training target's unit: ``users: [B]``, ``movies: [B]`` -> ``[B]``.

        With the ordinal head it is the logarithms of the levels' probabilities, ``[B, K]``;
        ``point`` turns either into one number a row.

        Args:
            users: user indices; 0 is unknown.
            movies: positions in the movie table.
            times: ``[B]`` seconds since 1970 UTC; only a model that looks at times needs them.
            known: the rows' targets ``[B]`` and the boundaries ``[C + 1]`` of groups of rows that
                inform each other, for a model that ``learns_in_groups``, in training. Each row is
                predicted from the others of its group; without it, from the user's history.
        """
        number = self._number(users, movies, times, known)
        return number if self.head is None else self.head(number)

    def point(self, outputs: torch.Tensor) -> torch.Tensor:
        """``[B]`` predictions, whatever ``forward`` returned."""
        return outputs if self.head is None else self.head.expectation(outputs)

    def _number(
        self,
        users: torch.Tensor,
        movies: torch.Tensor,
        times: torch.Tensor | None,
        known: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """All parts added up, ``[B]``."""
        if times is None and self.learns_in_groups and self.config.history.use_times:
            raise ValueError("a model whose history looks at times needs the times of its rows")
        rows = Ratings.of(movies, torch.zeros_like(users) if times is None else times)
        inputs = None
        if self.history_inputs is not None:
            inputs = (
                self.history_inputs.from_history(users, rows, self._known_history())
                if known is None
                else self.history_inputs.within_groups(rows, *known)
            )
        prediction = self._own(users, movies, times, inputs)
        if known is not None and not len(users):
            # Data parallelism waits for the gradient of every parameter, on every worker.
            return prediction + 0.0 * sum(p.sum() for p in self.parameters())
        if self.closed_form is None:
            return prediction
        if known is None:
            return prediction + self.posterior(users, rows)
        targets, starts = known
        return prediction + self.closed_form.within_groups(rows, targets - prediction, starts)

    def start_at(self, mean_target: float) -> None:
        """Let the untrained network predict about ``mean_target``."""
        with torch.no_grad():
            self.output.bias.fill_(mean_target)

    def remember(self, rows: Rows) -> None:
        """Take note of the training rows, whose ratings are in the training target's unit.

        Raises:
            TypeError: if the model ``learns_in_groups`` and the rows are not in memory.
        """
        for branch in self.branches.values():
            if isinstance(branch, TimeFeatures):
                branch.remember(rows)
        if self.learns_in_groups:
            if not isinstance(rows, Batch):
                raise TypeError(
                    "a model that learns from the user's other ratings needs all of them in "
                    f"memory, as a Batch, and got {type(rows).__name__}"
                )
            self.recall(History.of(rows, self._num_users, self.config.history.max_ratings))

    def recall(self, history: History) -> None:
        """Look at ``history`` from now on."""
        self.history = history
        self._solution = None

    def train(self, mode: bool = True) -> NCF:
        """As in torch; weights may change afterwards, so nothing that follows from them is kept."""
        self._solution = None
        super().train(mode)
        return self

    def ridges(self, config: TrainConfig) -> Iterator[tuple[torch.Tensor, float]]:
        """The free numbers of users and movies, each with its ridge penalty."""
        for branch in self.branches.values():
            if isinstance(branch, (UserEmbedding, MovieEmbedding, NameAverage)):
                yield branch.table.weight, config.embedding_l2
        if self.factors is not None:
            yield self.factors.users.weight, config.embedding_l2
            assert self.factors.movies.free is not None
            yield self.factors.movies.free.weight, config.embedding_l2
        if self.biases is not None:
            for table in (self.biases.user, self.biases.movie):
                if table is not None:
                    yield table.weight, config.bias_l2
        for part in (self.closed_form, self.history_inputs):
            for module in part.modules() if part is not None else ():
                if isinstance(module, ContentVector) and module.free is not None:
                    is_bias = module.free.embedding_dim == 1
                    yield module.free.weight, config.bias_l2 if is_bias else config.history_l2

    def _own(
        self,
        users: torch.Tensor,
        movies: torch.Tensor,
        times: torch.Tensor | None,
        inputs: torch.Tensor | None,
    ) -> torch.Tensor:
        """Everything but the closed form; ``inputs: [B, W]`` come from the history."""
        return reduce(torch.add, self._own_parts(users, movies, times, inputs).values())

    def _own_parts(
        self,
        users: torch.Tensor,
        movies: torch.Tensor,
        times: torch.Tensor | None,
        inputs: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """The same as its summands, ``[B]`` each."""
        fields = torch.stack([b(users, movies, times) for b in self.branches.values()], dim=1)
        fused = self.fusion(fields)
        if inputs is not None:
            fused = torch.cat([fused, inputs], dim=1)
        parts = {"network": self.output(self.hidden(fused)).squeeze(1)}
        if self.biases is not None:
            parts["biases"] = self.biases(users, movies)
        if self.factors is not None:
            parts["factors"] = self.factors(users, movies)
        return parts

    def base(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What predictions are without the closed form, as summands ``[B]``, by name.

        ``network`` holds the mean rating. Users, movies and times are those of ``forward``.
        """
        inputs = None
        if self.history_inputs is not None:
            rows = Ratings.of(movies, times)
            inputs = self.history_inputs.from_history(users, rows, self._known_history())
        return self._own_parts(users, movies, times, inputs)

    def contributions(self, user: int, rows: Ratings) -> torch.Tensor:
        """What each rating of the user's history adds to each row, by the closed form.

        ``rows: [Q]`` -> ``[Q, L]``, whose sum over the L ratings, in the order of ``history``, is
        the ``posterior``.
        """
        assert self.closed_form is not None
        history = self._known_history()
        kept = slice(int(history.starts[user]), int(history.starts[user + 1]))
        known = Ratings.of(history.movies, history.times)
        weights = self._weights(history, known)[kept]
        mine = Ratings(known.movies[None, kept], known.days[None, kept])
        covariance = self.closed_form.kernel(Ratings(rows.movies[None], rows.days[None]), mine)[0]
        return covariance * weights

    def for_newcomer(self, rows: Rows) -> NCF:
        """A model that knows ``rows`` alone, whose user index is 0.

        It shares the parameters, and the tables of movies, which are too large to be copied for
        each answer. Of the user it has no vector and no bias, which take training; all that it
        says of the user comes from these ratings, which are in the training target's unit.
        """
        of_users = {id(b.first) for b in self.branches.values() if isinstance(b, TimeFeatures)}
        tensors = (*self.parameters(), *self.buffers())
        shared: dict[int, object] = {id(t): t for t in tensors if id(t) not in of_users}
        shared[id(self.config)] = self.config
        left_out = {id(self.history): None, id(self._solution): None}
        result = copy.deepcopy(self, shared | left_out)
        result.remember(rows)
        return result

    def posterior(self, users: torch.Tensor, rows: Ratings) -> torch.Tensor:
        """What the closed form adds to each row, from the users' histories: ``[B] -> [B]``."""
        assert self.closed_form is not None
        history = self._known_history()
        ratings = Ratings.of(history.movies, history.times)
        weights = self._weights(history, ratings)
        return self.closed_form.posterior(users, rows, ratings, weights, history.starts)

    def _weights(self, history: History, ratings: Ratings) -> torch.Tensor:
        """``[N]`` by how much each known rating counts, solved for once."""
        assert self.closed_form is not None
        if self._solution is None:
            with torch.no_grad():
                residuals = history.ratings - self._own_of_history(history, ratings)
                self._solution = self.closed_form.solve(ratings, residuals, history.starts)
        return self._solution

    def _own_of_history(self, history: History, ratings: Ratings) -> torch.Tensor:
        """``[N]`` what is expected of the known ratings without the closed form."""
        rows = history.rows()
        inputs = None
        if self.history_inputs is not None:
            inputs = self.history_inputs.within_groups(ratings, history.ratings, history.starts)
        parts = torch.arange(len(rows), device=rows.users.device).split(_ROWS_AT_ONCE)
        return torch.cat(
            [
                self._own(
                    rows.users[part],
                    rows.movies[part],
                    rows.times[part],
                    None if inputs is None else inputs[part],
                )
                for part in parts
            ]
        )

    def _known_history(self) -> History:
        if self.history is None:
            raise RuntimeError("the model has no history: call remember() or recall() first")
        return self.history


def _dense_layers(config: ModelConfig, further: int) -> tuple[nn.Sequential, int]:
    """The dense layers over all inputs and ``further`` columns, and the size of what comes out."""
    width = config.embedding_dim * len(config.inputs) + further
    layers: list[nn.Module] = []
    for size in config.hidden_dims:
        layers.append(nn.Linear(width, size))
        if config.normalization == "batch":
            layers.append(BatchNorm(size))
        elif config.normalization == "layer":
            layers.append(nn.LayerNorm(size))
        layers += [nn.ReLU(), nn.Dropout(config.dropout)]
        width = size
    return nn.Sequential(*layers), width
