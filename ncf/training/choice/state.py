"""The state of a choice network's training between two epochs.

::

    state.safetensors    weights of the last and the best epoch, and the optimiser's
    state.json           epochs so far, format version

Random numbers follow from the seed and the epoch, so they have no state.
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
from ncf.models.choice.network import ChoiceNetwork
from ncf.models.weights import Weights

FORMAT_VERSION: Final = 2


@dataclass(frozen=True)
class ChoiceEpoch:
    """The record of one pass over the training users."""

    number: int
    """From 1."""
    train_loss: float
    """Mean loss of a user, without L2 penalties."""
    learning_rate: float
    """Of the epoch's last step."""
    seconds: float
    """Wall time of training and validation."""
    validation: dict[str, float] | None
    """Metrics on the validation rows by name; None in epochs that are not ranked."""
    is_best: bool
    """Whether its weights are the best so far; see ``ncf.training.choice.loop``."""

    def as_dict(self) -> dict[str, Any]:
        """Flat record for reports: ``validation_ndcg@10``."""
        record: dict[str, Any] = {
            "epoch": self.number,
            "train_loss": self.train_loss,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
        }
        validation = self.validation or {}
        return record | {f"validation_{name}": value for name, value in validation.items()}


@dataclass(frozen=True)
class ChoiceFitResult:
    """A training run, finished or so far."""

    epochs: tuple[ChoiceEpoch, ...]
    best_epoch: int
    """Number of the epoch whose weights are ``best``; 0 before the first."""
    best: Weights
    """Weights of the best epoch."""
    last: Weights
    """Weights of the last epoch."""

    def after(self, epoch: ChoiceEpoch, weights: Weights) -> ChoiceFitResult:
        """The run with one more epoch, which ended with ``weights``."""
        epochs = (*self.epochs, epoch)
        if epoch.is_best:
            return ChoiceFitResult(epochs, epoch.number, weights, weights)
        return ChoiceFitResult(epochs, self.best_epoch, self.best, weights)


@dataclass(frozen=True)
class ChoiceTrainingState:
    """All that ``ncf.training.choice.loop.ChoiceTraining`` needs to continue after an epoch."""

    result: ChoiceFitResult
    """The run so far."""
    optimizer: Mapping[str, torch.Tensor]
    """Moments and numbers of steps."""


def snapshot(network: ChoiceNetwork) -> Weights:
    """A copy of the weights on the CPU."""
    state = network.state_dict()
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def save_state(state: ChoiceTrainingState, folder: Path) -> None:
    """Write ``state`` into ``folder``, which must not be read before this has ended."""
    folder.mkdir(parents=True, exist_ok=True)
    result = state.result
    groups: dict[str, Mapping[str, torch.Tensor]] = {
        "last": result.last,
        "best": {} if result.best is result.last else result.best,
        "optimizer": state.optimizer,
    }
    tensors = {
        f"{group}.{n}": tensor for group, named in groups.items() for n, tensor in named.items()
    }
    save_file(tensors, folder / "state.safetensors")
    content = {
        "format_version": FORMAT_VERSION,
        "epochs": [asdict(epoch) for epoch in result.epochs],
        "best_epoch": result.best_epoch,
    }
    (folder / "state.json").write_text(json.dumps(content), encoding="utf-8")
    write_checksums(folder)


def load_state(folder: Path) -> ChoiceTrainingState | None:
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
        tensors = load_file(folder / "state.safetensors")
        epochs = tuple(ChoiceEpoch(**record) for record in content["epochs"])
        best_epoch = content["best_epoch"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot continue from {folder}: {error}. Start the training again with --force."
        ) from error
    last, best = _group("last", tensors), _group("best", tensors)
    result = ChoiceFitResult(epochs, best_epoch, best or last, last)
    return ChoiceTrainingState(result, _group("optimizer", tensors))


def _group(name: str, tensors: Weights) -> Weights:
    return {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}
