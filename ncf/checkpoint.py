"""A trained model as one folder: weights, configuration and fitted state; no pickles.

::

    model.safetensors      weights
    checkpoint.json        format version, configuration, and what the trainer recorded
    fitted.json            scalars of the fitted state
    users.parquet          its users
    movies.parquet         its movie table
    history.parquet        training ratings, if predictions look at them
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ncf.config import ExperimentConfig
from ncf.errors import CheckpointError, DataError
from ncf.fitted import FittedState, load_fitted, save_fitted
from ncf.history import History
from ncf.model import NCF
from ncf.training import Weights

FORMAT_VERSION: Final = 1
HISTORY: Final = "history.parquet"


@dataclass(frozen=True)
class Checkpoint:
    """A model with all that is needed to use it."""

    model: NCF
    """In evaluation mode, on the CPU."""
    experiment: ExperimentConfig
    """How it was built and trained."""
    fitted: FittedState
    """What was learned from the training split besides the weights."""
    record: dict[str, Any]
    """What the trainer set down: epoch, seed, metrics."""


def save(
    folder: Path,
    weights: Weights,
    experiment: ExperimentConfig,
    fitted: FittedState,
    record: dict[str, Any],
    history: History | None = None,
) -> None:
    """Write a checkpoint; ``folder`` appears whole or not at all, and replaces an older one.

    ``history`` is that of the model, for one that has any.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(weights, partial / "model.safetensors")
    save_fitted(fitted, partial)
    if history is not None:
        pq.write_table(history.to_arrow(), partial / HISTORY, compression="zstd")
    content = {
        "format_version": FORMAT_VERSION,
        "experiment": experiment.model_dump(mode="json"),
        "record": record,
    }
    (partial / "checkpoint.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load(folder: Path) -> Checkpoint:
    """Read what ``save`` wrote.

    Raises:
        CheckpointError: if a file is missing, damaged, or of another format version.
    """
    try:
        content = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"the checkpoint {folder} has format version {content['format_version']}, this "
                f"program reads version {FORMAT_VERSION}. Train again."
            )
        experiment = ExperimentConfig.model_validate(content["experiment"])
        fitted = load_fitted(folder)
        model = NCF(experiment.model, fitted)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        if model.learns_in_groups:
            table = pq.read_table(folder / HISTORY)
            model.recall(History.from_arrow(table, fitted.num_users))
        return Checkpoint(model.eval(), experiment, fitted, content["record"])
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        DataError,
    ) as error:
        raise CheckpointError(f"cannot read the checkpoint {folder}: {error}") from error
