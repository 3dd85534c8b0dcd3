"""A trained model as one folder: weights, configuration and preprocessor; no pickles.

::

    model.safetensors      weights
    checkpoint.json        format version, configuration, and the record of the training
    fitted.json            scalars of the preprocessor
    users.parquet          its users
    movies.parquet         its movie table
    history.parquet        the rating history, for a model that is conditioned on one
    rated.parquet          who rated what in all splits, of the final model of a run
    uncertainty.json       what was learned of the size of errors, with validation rows
    blend/                 baselines that the network is blended with, if there are any
    SHA256SUMS             checksums of all these files, in the format of ``sha256sum --check``

The checksums detect damaged and edited files. They are no signature, so they do not tell who made
the checkpoint. Reading a checkpoint never runs code from it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from foundation.checksums import CHECKSUMS, verify_checksums, write_checksums
from foundation.storage import read_parquet
from ncf.blending.blend import Blend
from ncf.config import ExperimentConfig
from ncf.data.preprocessor import Preprocessor, load_preprocessor, save_preprocessor
from ncf.errors import CheckpointError, DataError
from ncf.evaluation.ranking import SeenMovies
from ncf.evaluation.uncertainty import Uncertainty
from ncf.inference.shapes import check_shapes
from ncf.models.conditioned import ConditionedModel
from ncf.models.history.ratings import History
from ncf.models.ncf import NCF
from ncf.models.weights import Weights

FORMAT_VERSION: Final = 3
FILE: Final = "checkpoint.json"
HISTORY: Final = "history.parquet"
RATED: Final = "rated.parquet"
UNCERTAINTY: Final = "uncertainty.json"
BLEND: Final = "blend"
"""Folder of the blend in that of the checkpoint; ``Blend.save`` writes it."""


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A model with all that is needed to use it."""

    model: ConditionedModel
    """In evaluation mode, on the CPU."""
    experiment: ExperimentConfig
    """How it was built and trained."""
    preprocessor: Preprocessor
    """All that was fitted to the training rows besides the weights."""
    record: dict[str, Any]
    """The record of the training: epoch, seed, metrics."""
    blend: Blend | None = None
    """What the network is blended with, if anything is."""
    uncertainty: Uncertainty | None = None
    """What was learned of the size of errors on validation rows, if there were any."""
    rated: SeenMovies | None = None
    """What users have rated, in test rows too, so that it is not recommended; None but of the final
    model of a run."""

    def __repr__(self) -> str:
        return f"<Checkpoint: {self.summary}>"

    @property
    def summary(self) -> str:
        """The kind of model, in one line."""
        config = self.model.config
        parts = [f"network of {', '.join(config.inputs)}"]
        parts += [f"with {encoder}" for encoder in config.history.encoders]
        if self.blend is not None:
            parts += [f"blended with {name}" for name, _ in self.blend.members]
        parts += ["with intervals"] if self.uncertainty else []
        return "; ".join(parts)


def save(
    folder: Path,
    weights: Weights,
    experiment: ExperimentConfig,
    preprocessor: Preprocessor,
    record: dict[str, Any],
    history: History | None = None,
) -> None:
    """Write a checkpoint; ``folder`` appears whole or not at all, and replaces an older one.

    ``history`` is that of the model, if it has one.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(weights, partial / "model.safetensors")
    save_preprocessor(preprocessor, partial)
    if history is not None:
        pq.write_table(history.to_arrow(), partial / HISTORY, compression="zstd")
    content = {
        "format_version": FORMAT_VERSION,
        "experiment": experiment.model_dump(mode="json"),
        "record": record,
    }
    (partial / FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
    write_checksums(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def extend(
    folder: Path,
    blend: Blend | None,
    uncertainty: Uncertainty | None,
    rated: SeenMovies | None = None,
) -> None:
    """Add to what ``save`` has written, in a folder that no other process reads yet."""
    if rated is not None:
        users = np.repeat(np.arange(len(rated.starts) - 1, dtype=np.int32), np.diff(rated.starts))
        table = pa.table({"user_index": users, "movie_index": rated.movies})
        pq.write_table(table, folder / RATED, compression="zstd")
    if blend is not None:
        blend.save(folder / BLEND)
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        content["blend"] = _checksum_of_blend(folder)
        (folder / FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
    if uncertainty is not None:
        content = json.dumps(uncertainty.to_json(), indent=2)
        (folder / UNCERTAINTY).write_text(content, encoding="utf-8")
    write_checksums(folder)


def _checksum_of_blend(folder: Path) -> str:
    return hashlib.sha256((folder / BLEND / CHECKSUMS).read_bytes()).hexdigest()


def load(folder: Path) -> Checkpoint:
    """Read what ``save`` wrote.

    Raises:
        CheckpointError: if a file is missing, damaged, changed, or of another format version.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"the checkpoint {folder} has format version {content['format_version']}, this "
                f"program reads version {FORMAT_VERSION}. Train again."
            )
        verify_checksums(folder)
        experiment = ExperimentConfig.model_validate(content["experiment"])
        preprocessor = load_preprocessor(folder)
        build, weights = partial(NCF, experiment.model, preprocessor), folder / "model.safetensors"
        check_shapes(build, weights)
        model = ConditionedModel(build())
        model.network.load_state_dict(load_file(weights))
        if model.uses_history:
            table = read_parquet(folder / HISTORY)
            model.set_history(History.from_arrow(table, preprocessor.num_users))
        blend = None
        if "blend" in content:
            if _checksum_of_blend(folder) != content["blend"]:
                raise ValueError(f"{BLEND}/ is that of another checkpoint. Copy the folder again")
            blend = Blend.load(folder / BLEND, preprocessor)
        uncertainty = None
        if (folder / UNCERTAINTY).exists():
            found = json.loads((folder / UNCERTAINTY).read_text(encoding="utf-8"))
            uncertainty = Uncertainty.from_json(found)
        rated = None
        if (folder / RATED).exists():
            users, movies = (c.to_numpy() for c in read_parquet(folder / RATED).columns)
            rated = SeenMovies.of(users, movies, preprocessor.num_users)
        model.eval()
        record = content["record"]
        return Checkpoint(model, experiment, preprocessor, record, blend, uncertainty, rated)
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
