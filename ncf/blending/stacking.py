"""Members of a blend that are fitted to predictions of its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import torch

from ncf.baselines.tables import FeatureTable
from ncf.data.batches import Batch
from ncf.data.preprocessor import Floats, Preprocessor

S = TypeVar("S")


@runtime_checkable
class StackedMember(Protocol):
    """A model that adds a correction to the network's predictions."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    @property
    def detail(self) -> str:
        """Its settings in words."""

    def predict_from(self, network: torch.Tensor, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped, from the network's clipped ones: ``[B]``."""

    def fold_in(self, rows: Batch) -> Self:
        """The member for one new user with the ratings ``rows``, who has any index in what it
        predicts."""

    def save(self, folder: Path) -> None:
        """Write files into a folder that is there."""


@runtime_checkable
class Correcting(Protocol):
    """A stacked member whose corrections of the network are sums over features."""

    def corrections(self, network: torch.Tensor, rows: Batch) -> FeatureTable:
        """``[B, F + 1]`` terms whose sums are added to the network's clipped stars: ``[B]``."""


@dataclass(frozen=True)
class StackedRows:
    """Rows with the predictions of a network that has not learned from them."""

    rows: Batch
    """``[B]``."""
    network: Floats
    """``[B]`` clipped stars. Of training rows, out-of-fold ones: ``ncf.training.out_of_fold``."""


@dataclass(frozen=True)
class StackedSpec(Generic[S]):
    """A kind of such members."""

    name: str
    """Name in tables."""
    tune: Callable[[StackedRows, StackedRows, Preprocessor, S, int], S]
    """Chooses settings on the validation rows: ``tune(train, validation, preprocessor, default,
    num_trials)``."""
    fit: Callable[[StackedRows, Preprocessor, S], StackedMember]
    """Fits it to training rows."""
    default: Callable[[bool], S]
    """Settings to start from: ``default(with_times)``."""


def fit_stacked(
    spec: StackedSpec[Any],
    train: StackedRows,
    validation: StackedRows,
    preprocessor: Preprocessor,
    num_trials: int,
    *,
    with_times: bool,
) -> tuple[StackedMember, Any]:
    """A member fitted to ``train`` with settings that are chosen on ``validation``; and these."""
    default = spec.default(with_times)
    settings = spec.tune(train, validation, preprocessor, default, num_trials)
    return spec.fit(train, preprocessor, settings), settings
