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
from typing import cast

import torch
from torch import nn

from ncf.config import ModelConfig, TrainConfig
from ncf.data.batches import Batch, RatingSource
from ncf.data.preprocessor import Preprocessor
from ncf.models.branches.base import Branch, build_branch
from ncf.models.fusion import fusion
from ncf.models.heads import OrdinalHead
from ncf.models.history.encoders import HistoryInputs
from ncf.models.history.gaussian_process import GaussianProcess
from ncf.models.history.ratings import History, Ratings
from ncf.models.layers import GMF, BatchNorm, Biases, L2Group, Penalized

_ROWS_AT_ONCE = 8192
"""History rows in one forward pass."""


class NCF(nn.Module):
    """The configured parts, added up to one number a row."""

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        """Build with random weights; seed torch first for repeatable ones."""
        super().__init__()
        self.config = config
        self._num_users = preprocessor.num_users
        self.branches = nn.ModuleDict(
            {name: build_branch(name, config, preprocessor) for name in config.inputs}
        )
        self.fusion = fusion(config)
        encoders = config.history.encoders
        self.gaussian_process = self.history_inputs = None
        if "gaussian-process" in encoders:
            self.gaussian_process = GaussianProcess(config.history, preprocessor)
        if set(encoders) - {"gaussian-process"}:
            self.history_inputs = HistoryInputs(config.history, preprocessor)
        self.hidden, width = _dense_layers(
            config, self.history_inputs.width if self.history_inputs else 0
        )
        self.output = nn.Linear(width, 1)
        self.biases = Biases(config.biases, preprocessor) if config.biases else None
        self.gmf = GMF(config, preprocessor) if config.gmf_dim else None
        self.head = OrdinalHead(preprocessor) if config.head == "ordinal" else None
        self.history: History | None = None
        """The ratings that predictions look at; part of the model as much as its weights."""
        self._solution: torch.Tensor | None = None

    @property
    def inputs(self) -> dict[str, Branch]:
        """The branches by name, in the order of ``model.inputs``."""
        return {name: cast(Branch, part) for name, part in self.branches.items()}

    @property
    def uses_time(self) -> bool:
        """Whether predictions depend on when a rating is given."""
        of_history = self.uses_history and self.config.history.use_times
        return of_history or any(part.uses_time for part in self.inputs.values())

    @property
    def uses_history(self) -> bool:
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
        ``expected_rating`` turns either into one number a row.

        Args:
            users: user indices; 0 is unknown.
            movies: positions in the movie table.
            times: ``[B]`` seconds since 1970 UTC; only a model that looks at times needs them.
            known: the rows' targets ``[B]`` and the boundaries ``[C + 1]`` of groups of rows that
                inform each other, for a model that ``uses_history``, in training. Each row is
                predicted from the others of its group; without it, from the user's history.
        """
        number = self._number(users, movies, times, known)
        return number if self.head is None else self.head(number)

    def expected_rating(self, outputs: torch.Tensor) -> torch.Tensor:
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
        if times is None and self.uses_history and self.config.history.use_times:
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
        if self.gaussian_process is None:
            return prediction
        if known is None:
            return prediction + self.posterior(users, rows)
        targets, starts = known
        return prediction + self.gaussian_process.within_groups(rows, targets - prediction, starts)

    def init_output_bias(self, mean_target: float) -> None:
        """Let the untrained network predict about ``mean_target``."""
        with torch.no_grad():
            self.output.bias.fill_(mean_target)

    def fit_history(self, rows: RatingSource) -> None:
        """Take note of the training rows, whose ratings are in the training target's unit.

        Raises:
            TypeError: if the model ``uses_history`` and the rows are not in memory.
        """
        for part in self.inputs.values():
            part.fit_rows(rows)
        if self.uses_history:
            if not isinstance(rows, Batch):
                raise TypeError(
                    "a model that learns from the user's other ratings needs all of them in "
                    f"memory, as a Batch, and got {type(rows).__name__}"
                )
            self.set_history(History.of(rows, self._num_users, self.config.history.max_ratings))

    def set_history(self, history: History) -> None:
        """Look at ``history`` from now on."""
        self.history = history
        self._solution = None

    def train(self, mode: bool = True) -> NCF:
        """As in torch; weights may change afterwards, so nothing that follows from them is kept."""
        self._solution = None
        super().train(mode)
        return self

    def l2_penalties(self, config: TrainConfig) -> Iterator[tuple[torch.Tensor, float]]:
        """The tables of free numbers, each with its L2 penalty."""
        strengths: dict[L2Group, float] = {
            "embedding": config.embedding_l2,
            "bias": config.bias_l2,
            "history": config.history_l2,
        }
        for part in self.modules():
            if isinstance(part, Penalized):
                for table in part.l2_tables():
                    yield table, strengths[part.l2_group]

    def _own(
        self,
        users: torch.Tensor,
        movies: torch.Tensor,
        times: torch.Tensor | None,
        inputs: torch.Tensor | None,
    ) -> torch.Tensor:
        """Everything but the Gaussian process; ``inputs: [B, W]`` come from the history."""
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
        if self.gmf is not None:
            parts["gmf"] = self.gmf(users, movies)
        return parts

    def base(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What predictions are without the Gaussian process, as summands ``[B]``, by name.

        ``network`` holds the mean rating. Users, movies and times are those of ``forward``.
        """
        inputs = None
        if self.history_inputs is not None:
            rows = Ratings.of(movies, times)
            inputs = self.history_inputs.from_history(users, rows, self._known_history())
        return self._own_parts(users, movies, times, inputs)

    def attributions(self, user: int, rows: Ratings) -> torch.Tensor:
        """What each rating of the user's history adds to each row, by the Gaussian process.

        ``rows: [Q]`` -> ``[Q, L]``, whose sum over the L ratings, in the order of ``history``, is
        the ``posterior``.
        """
        assert self.gaussian_process is not None
        history = self._known_history()
        kept = slice(int(history.starts[user]), int(history.starts[user + 1]))
        known = Ratings.of(history.movies, history.times)
        weights = self._weights(history, known)[kept]
        mine = Ratings(known.movies[None, kept], known.days[None, kept])
        covariance = self.gaussian_process.kernel(
            Ratings(rows.movies[None], rows.days[None]), mine
        )[0]
        return covariance * weights

    def fold_in(self, rows: RatingSource) -> NCF:
        """A model that knows ``rows`` alone, whose user index is 0.

        It shares the parameters, and the tables of movies, which are too large to be copied for
        each answer. Of the user it has no vector and no bias, which take training; all that it
        says of the user comes from these ratings, which are in the training target's unit.
        """
        of_users = {id(t) for part in self.inputs.values() for t in part.fitted_buffers()}
        tensors = (*self.parameters(), *self.buffers())
        shared: dict[int, object] = {id(t): t for t in tensors if id(t) not in of_users}
        shared[id(self.config)] = self.config
        left_out = {id(self.history): None, id(self._solution): None}
        result = copy.deepcopy(self, shared | left_out)
        result.fit_history(rows)
        return result

    def posterior(self, users: torch.Tensor, rows: Ratings) -> torch.Tensor:
        """What the Gaussian process adds to each row, from the users' histories: ``[B] -> [B]``."""
        assert self.gaussian_process is not None
        history = self._known_history()
        ratings = Ratings.of(history.movies, history.times)
        weights = self._weights(history, ratings)
        return self.gaussian_process.posterior(users, rows, ratings, weights, history.starts)

    def _weights(self, history: History, ratings: Ratings) -> torch.Tensor:
        """``[N]`` by how much each known rating counts, solved for once."""
        assert self.gaussian_process is not None
        if self._solution is None:
            with torch.no_grad():
                residuals = history.ratings - self._own_of_history(history, ratings)
                self._solution = self.gaussian_process.solve(ratings, residuals, history.starts)
        return self._solution

    def _own_of_history(self, history: History, ratings: Ratings) -> torch.Tensor:
        """``[N]`` what is expected of the known ratings without the Gaussian process."""
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
