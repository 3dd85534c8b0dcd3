"""The state of a training run between two epochs: its result so far, and what it needs to continue.

::

    state.safetensors    weights of the last and the best epoch, the optimiser's, random states
    state.json           epochs so far, schedule, format version
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from foundation.checksums import verify_checksums, write_checksums
from ncf.errors import CheckpointError
from ncf.evaluation.metrics import METRICS, ErrorSums, Metric, Scores
from ncf.models.weights import Weights

FORMAT_VERSION: Final = 3


@dataclass(frozen=True)
class Epoch:
    """The record of one pass over the training rows."""

    number: int
    """From 1."""
    train_loss: float
    """Mean weighted training loss, dropout active."""
    learning_rate: float
    """After the epoch's last step."""
    seconds: float
    """Wall time of training and validation."""
    validation: Scores | None
    """Errors on the validation rows; None without a validation split."""
    is_best: bool
    """Whether it is better than all earlier epochs; always true without a validation split, and if
    ``train.keep`` is ``last``."""

    def cost(self, metric: Metric) -> float:
        """What epochs are compared by, less is better; without validation rows, the newest epoch
        is the best."""
        return metric.cost(self.validation) if self.validation else -float(self.number)

    def as_dict(self) -> dict[str, Any]:
        """Flat record for reports: ``validation_rmse`` is in stars."""
        record: dict[str, Any] = {
            "epoch": self.number,
            "train_loss": self.train_loss,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
        }
        if self.validation:
            for name, metric in METRICS.items():
                record[f"validation_{name}"] = metric.of(self.validation)
        return record


@dataclass(frozen=True)
class FitResult:
    """A training run, finished or so far."""

    epochs: tuple[Epoch, ...]
    best_epoch: int
    """Number of the epoch whose weights are ``best``; 0 before the first."""
    best: Weights
    """Weights of the best epoch by validation; of the last without a validation split."""
    last: Weights
    """Weights of the last epoch."""

    def after(self, epoch: Epoch, weights: Weights) -> FitResult:
        """The run with one more epoch, which ended with ``weights``."""
        epochs = (*self.epochs, epoch)
        if epoch.is_best:
            return FitResult(epochs, epoch.number, weights, weights)
        return FitResult(epochs, self.best_epoch, self.best, weights)


@dataclass(frozen=True)
class TrainingState:
    """All that ``ncf.training.loop.Training`` needs to continue after an epoch."""

    result: FitResult
    """The run so far."""
    optimizer: Mapping[str, torch.Tensor]
    """Moments and numbers of steps."""
    schedule: Mapping[str, float]
    """State of the learning rate, see ``ncf.training.schedules``."""
    order: torch.Tensor
    """State of the generator that shuffles rows."""
    dropout: torch.Tensor
    """``[W, S]`` state of each worker's generator of dropout masks."""


def save_state(state: TrainingState, folder: Path) -> None:
    """Write ``state`` into ``folder``, which must not be read before this has ended."""
    folder.mkdir(parents=True, exist_ok=True)
    result = state.result
    groups: dict[str, Mapping[str, torch.Tensor]] = {
        "last": result.last,
        "best": {} if result.best is result.last else result.best,
        "optimizer": state.optimizer,
        "random": {"order": state.order, "dropout": state.dropout},
    }
    tensors = {
        f"{group}.{n}": tensor for group, named in groups.items() for n, tensor in named.items()
    }
    save_file(tensors, folder / "state.safetensors")
    content = {
        "format_version": FORMAT_VERSION,
        "epochs": [asdict(epoch) for epoch in result.epochs],
        "best_epoch": result.best_epoch,
        "schedule": dict(state.schedule),
    }
    (folder / "state.json").write_text(json.dumps(content), encoding="utf-8")
    write_checksums(folder)


def load_state(folder: Path) -> TrainingState | None:
    """Read a state that ``save_state`` wrote; None if there is none.

    Raises:
        CheckpointError: if it is damaged or of another format version.
    """
    if not folder.exists():
        return None
    try:
        content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {content['format_version']}, not {FORMAT_VERSION}")
        verify_checksums(folder)
        return _state(content, load_file(folder / "state.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot continue from {folder}: {error}. Start the training again with --force."
        ) from error


def _state(content: dict[str, Any], tensors: Weights) -> TrainingState:
    last, best = _group("last", tensors), _group("best", tensors)
    epochs = tuple(_epoch(record) for record in content["epochs"])
    return TrainingState(
        result=FitResult(epochs, content["best_epoch"], best or last, last),
        optimizer=_group("optimizer", tensors),
        schedule=content["schedule"],
        order=tensors["random.order"],
        dropout=tensors["random.dropout"],
    )


def _group(name: str, tensors: Weights) -> Weights:
    return {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}


def _epoch(record: dict[str, Any]) -> Epoch:
    scores = record["validation"]
    validation = scores and Scores(*(ErrorSums(**scores[scale]) for scale in ("stars", "decayed")))
    return Epoch(**(record | {"validation": validation}))
