"""Neural Collaborative Filtering, after He et al., https://doi.org/10.1145/3038912.3052569.

::

    branches -> fusion -> dense layers -> one number      (model.inputs, fusion, hidden_dims)
        + biases of user and movie                        (model.biases)
        + generalised matrix factorisation                (model.gmf_dim)
        + Gaussian process over what is left              (model.history)

The network has the parameters of the history encoders; ``ncf.models.conditioned`` applies them to
users' rating histories.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import reduce
from typing import cast

import torch
from torch import nn

from ncf.config import ModelConfig, TrainConfig
from ncf.data.preprocessor import Preprocessor
from ncf.data.sampling import TrainingRows
from ncf.models.branches.base import Branch, build_branch
from ncf.models.fusion import fusion
from ncf.models.heads import OrdinalHead
from ncf.models.history.encoders import HistoryInputs
from ncf.models.history.gaussian_process import GaussianProcess
from ncf.models.history.ratings import RatingGroups, Ratings
from ncf.models.layers import GMF, Biases, L2Group, Penalized, normalization


class NCF(nn.Module):
    """The network: the sum of the configured parts, one number a row."""

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        """Build with random weights; seed torch first for repeatable ones."""
        super().__init__()
        self.config = config
        self.num_users = preprocessor.num_users
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

    @property
    def inputs(self) -> dict[str, Branch]:
        """The branches by name, in the order of ``model.inputs``."""
        return {name: cast(Branch, part) for name, part in self.branches.items()}

    @property
    def uses_time(self) -> bool:
        """Whether predictions depend on the time of the rating."""
        history_uses_times = self.uses_history and self.config.history.use_times
        return history_uses_times or any(part.uses_time for part in self.inputs.values())

    @property
    def uses_history(self) -> bool:
        """Whether predictions depend on other ratings of the user."""
        return bool(self.config.history.encoders)

    def forward(
        self,
        users: torch.Tensor,
        movies: torch.Tensor,
        times: torch.Tensor | None = None,
        groups: RatingGroups | None = None,
    ) -> torch.Tensor:
        """Predict in the training target's unit: ``users: [B]``, ``movies: [B]`` -> ``[B]``.

        With the ordinal head, return logarithms of the levels' probabilities, ``[B, K]``;
        ``expected_rating`` reduces either to one number a row.

        Args:
            users: user indices; 0 is unknown.
            movies: positions in the movie table.
            times: ``[B]`` seconds since 1970 UTC, for a network that ``uses_time``.
            groups: targets and groups of the rows in training, for a network that
                ``uses_history``: each row is predicted from other rows of its group.

        Raises:
            ValueError: if the network needs times or groups and has none.
        """
        if not self.uses_history:
            numbers = self.base(users, movies, times)
        elif groups is None:
            raise ValueError(
                "the network has history encoders and got no groups of rows; to predict from "
                "users' histories, use ncf.models.conditioned.ConditionedModel"
            )
        else:
            numbers = self._within_groups(users, movies, times, groups)
        return self.outputs(numbers)

    def outputs(self, numbers: torch.Tensor) -> torch.Tensor:
        """What ``forward`` returns for the sums of all parts, ``[B]``."""
        return numbers if self.head is None else self.head(numbers)

    def expected_rating(self, outputs: torch.Tensor) -> torch.Tensor:
        """``[B]`` predictions from what ``forward`` returned."""
        return outputs if self.head is None else self.head.expectation(outputs)

    def base(
        self,
        users: torch.Tensor,
        movies: torch.Tensor,
        times: torch.Tensor | None,
        encoded: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``[B]`` predictions without the Gaussian process; takes what ``terms`` takes."""
        return reduce(torch.add, self.terms(users, movies, times, encoded).values())

    def terms(
        self,
        users: torch.Tensor,
        movies: torch.Tensor,
        times: torch.Tensor | None,
        encoded: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The terms of ``base``, ``[B]`` each, by name; ``network`` includes the mean rating.

        Users, movies and times are those of ``forward``; ``encoded: [B, W]`` are the outputs of the
        history encoders.
        """
        fields = torch.stack([b(users, movies, times) for b in self.branches.values()], dim=1)
        fused = self.fusion(fields)
        if encoded is not None:
            fused = torch.cat([fused, encoded], dim=1)
        terms = {"network": self.output(self.hidden(fused)).squeeze(1)}
        if self.biases is not None:
            terms["biases"] = self.biases(users, movies)
        if self.gmf is not None:
            terms["gmf"] = self.gmf(users, movies)
        return terms

    def _within_groups(
        self,
        users: torch.Tensor,
        movies: torch.Tensor,
        times: torch.Tensor | None,
        groups: RatingGroups,
    ) -> torch.Tensor:
        """``[B]`` each row predicted from other rows of its group."""
        rows = self.rated(movies, times)
        encoded = None
        if self.history_inputs is not None:
            encoded = self.history_inputs.within_groups(rows, *groups)
        prediction = self.base(users, movies, times, encoded)
        if not len(users):
            # Data parallelism waits for the gradient of every parameter, on every worker.
            return prediction + 0.0 * sum(p.sum() for p in self.parameters())
        if self.gaussian_process is None:
            return prediction
        residuals = groups.targets - prediction
        return prediction + self.gaussian_process.within_groups(rows, residuals, groups.starts)

    def rated(self, movies: torch.Tensor, times: torch.Tensor | None) -> Ratings:
        """Movies ``[B]`` and times ``[B]`` as the history encoders take them.

        Raises:
            ValueError: if the encoders use times and there are none.
        """
        if times is None and self.config.history.use_times:
            raise ValueError(
                "a model with model.history.use_times needs the times of the rows to predict"
            )
        return Ratings.of(movies, torch.zeros_like(movies) if times is None else times)

    def init_output_bias(self, mean_target: float) -> None:
        """Make the untrained network predict about ``mean_target``."""
        with torch.no_grad():
            self.output.bias.fill_(mean_target)

    def fit_rows(self, rows: TrainingRows) -> None:
        """Fit the branches' buffers to the training rows."""
        for part in self.inputs.values():
            part.fit_rows(rows)

    def with_own_buffers(self) -> NCF:
        """A network that shares all tensors with this one, except those that ``fit_rows`` changes.

        The tables of movies are too large to be copied for each user that is folded in.
        """
        fitted = {id(t) for part in self.inputs.values() for t in part.fitted_buffers()}
        tensors = (*self.parameters(), *self.buffers())
        shared: dict[int, object] = {id(t): t for t in tensors if id(t) not in fitted}
        shared[id(self.config)] = self.config
        return copy.deepcopy(self, shared)

    def l2_penalties(self, config: TrainConfig) -> Iterator[tuple[torch.Tensor, float]]:
        """The penalised tables, each with the strength of its L2 penalty."""
        strengths: dict[L2Group, float] = {
            "embedding": config.embedding_l2,
            "bias": config.bias_l2,
            "history": config.history_l2,
        }
        for part in self.modules():
            if isinstance(part, Penalized):
                for table in part.l2_tables():
                    yield table, strengths[part.l2_group]


def _dense_layers(config: ModelConfig, num_encoded: int) -> tuple[nn.Sequential, int]:
    """The dense layers over all branches and ``num_encoded`` columns, and their output's size."""
    width = config.embedding_dim * len(config.inputs) + num_encoded
    layers: list[nn.Module] = []
    for size in config.hidden_dims:
        layers.append(nn.Linear(width, size))
        layers += normalization(config, size)
        layers += [nn.ReLU(), nn.Dropout(config.dropout)]
        width = size
    return nn.Sequential(*layers), width
