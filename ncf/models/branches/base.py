"""The base class of branches, and how a branch is built from its name."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch

from ncf.config import ModelConfig
from ncf.data.preprocessor import Preprocessor
from ncf.data.sampling import TrainingRows
from ncf.models.layers import L2Group, Penalized
from ncf.registry import BRANCHES, implementation


class Branch(Penalized):
    """One input of the network.

    Movies are positions in the movie table; the columns of the table that a branch uses are its
    buffers, so that a batch carries two integers and a time for each row.
    """

    depends_on: ClassVar[Literal["user", "movie", "both"]]
    """Which of its arguments the output depends on. Scoring all pairs of users and movies computes
    a branch once for each user or movie if it depends on only one of them; ``similar`` compares
    the branches that depend on the movie."""
    uses_time: ClassVar[bool] = False
    """Whether the output also depends on the time of the rating."""
    l2_group: L2Group = "embedding"

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``users: [B]``, ``movies: [B]``, ``times: [B]`` -> ``[B, D]``.

        Times are seconds since 1970 UTC; only a branch that ``uses_time`` needs them.
        """

    def fit_rows(self, rows: TrainingRows) -> None:
        """Fit buffers to the training rows; does nothing by default."""

    def fitted_buffers(self) -> tuple[torch.Tensor, ...]:
        """The buffers that ``fit_rows`` changes."""
        return ()


def build_branch(name: str, config: ModelConfig, preprocessor: Preprocessor) -> Branch:
    """A new branch of the kind that ``model.inputs`` calls ``name``.

    Raises:
        DataError: if the prepared data lack what the branch needs.
    """
    kind: type[Branch] = implementation(BRANCHES[name])
    return kind(config, preprocessor)
