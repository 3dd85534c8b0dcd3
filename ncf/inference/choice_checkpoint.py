"""A fitted choice model as one folder; no pickles.

::

    choice.json            format version, configuration, and the record of the training
    ease.safetensors       EASE, if it is a member
    network.safetensors    weights of the network, if it is a member
    fitted.json users.parquet movies.parquet    the preprocessor
    rated.parquet          who rated what
    SHA256SUMS             checksums of all these

Reading one never runs code from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from foundation.checksums import verify_checksums, write_checksums
from foundation.storage import read_parquet
from ncf.choice_config import ChoiceConfig
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Preprocessor, load_preprocessor, save_preprocessor
from ncf.errors import CheckpointError, DataError
from ncf.inference.shapes import check_shapes
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.context import Bumps
from ncf.models.choice.ease import Ease, EaseInputs
from ncf.models.choice.experts import ProductOfExperts
from ncf.models.choice.network import ChoiceNetwork, NetworkChoiceModel

FORMAT_VERSION: Final = 1
FILE: Final = "choice.json"

Member = Literal["ease", "network", "experts"]

_EASE: Final = "ease.safetensors"
_NETWORK: Final = "network.safetensors"
_RATED: Final = "rated.parquet"


@dataclass(frozen=True)
class ChoiceCheckpoint:
    """A choice model with all that is needed to use it."""

    model: ChoiceModel
    """The configured member."""
    ease: Ease | None
    """If it is a member: it explains choices, and knows which movies are alike."""
    config: ChoiceConfig
    """How it was fitted."""
    preprocessor: Preprocessor
    """Movies, users and scales."""
    known: Interactions
    """Training ratings, which users are scored by."""
    seen: Interactions
    """All ratings of the data set: these movies are not recommended again."""
    record: dict[str, Any]
    """The record of the training."""


def save(
    folder: Path,
    models: Mapping[Member, ChoiceModel],
    config: ChoiceConfig,
    preprocessor: Preprocessor,
    known: Interactions,
    held_out: Interactions,
    record: Mapping[str, Any],
) -> None:
    """Write a checkpoint; ``folder`` appears whole or not at all, and replaces an older one.

    Args:
        folder: where to.
        models: the fitted members.
        config: with the ridge, epoch and power that were chosen.
        preprocessor: fitted to the training ratings.
        known: training ratings.
        held_out: ratings that nothing was fitted to.
        record: of the training.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_preprocessor(preprocessor, partial)
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "choice": config.model_dump(mode="json"),
        "record": dict(record),
    }
    ease, network, experts = models.get("ease"), models.get("network"), models.get("experts")
    if isinstance(experts, ProductOfExperts):
        ease = experts.ease  # which may have another ridge
    if isinstance(ease, Ease):
        save_file(ease.tensors(), partial / _EASE)
        content["ease"] = {"mean": ease.inputs.mean, "eras": asdict(ease.inputs.eras)}
    if isinstance(network, NetworkChoiceModel):
        save_file(network.network.state_dict(), partial / _NETWORK)
    pq.write_table(_rated(known, held_out), partial / _RATED, compression="zstd")
    (partial / FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
    write_checksums(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load(folder: Path) -> ChoiceCheckpoint:
    """Read what ``save`` wrote.

    Raises:
        CheckpointError: if a file is missing, damaged, changed, or of another format version.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"the choice model {folder} has format version {content['format_version']}, this "
                f"program reads version {FORMAT_VERSION}. Train again."
            )
        verify_checksums(folder)
        return _load(folder, content)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        DataError,
    ) as error:
        raise CheckpointError(f"cannot read the choice model {folder}: {error}") from error


def _load(folder: Path, content: dict[str, Any]) -> ChoiceCheckpoint:
    config = ChoiceConfig.model_validate(content["choice"])
    preprocessor = load_preprocessor(folder)
    num_movies = len(preprocessor.movies)
    models: dict[Member, ChoiceModel] = {}
    ease = None
    if config.member != "network":
        of_ease = content["ease"]
        inputs = EaseInputs(config.ease, of_ease["mean"], Bumps(**of_ease["eras"]))
        ease = Ease.of_tensors(inputs, load_file(folder / _EASE), num_movies)
        models["ease"] = ease
    if config.member != "ease":
        build = partial(ChoiceNetwork, config.network, preprocessor)
        check_shapes(build, folder / _NETWORK)
        network = build()
        network.load_state_dict(load_file(folder / _NETWORK))
        models["network"] = NetworkChoiceModel(network.eval())
    if config.member == "experts":
        (power,), floor = config.experts.powers, config.experts.floor
        models["experts"] = ProductOfExperts(models["ease"], models["network"], power, floor)
    rated = read_parquet(folder / _RATED)
    is_known = rated["is_known"].to_numpy()
    return ChoiceCheckpoint(
        model=models[config.member],
        ease=ease,
        config=config,
        preprocessor=preprocessor,
        known=_interactions(rated.filter(is_known), num_movies),
        seen=_interactions(rated, num_movies),
        record=content["record"],
    )


def _rated(known: Interactions, held_out: Interactions) -> pa.Table:
    parts = [_table(known, is_known=True), _table(held_out, is_known=False)]
    return pa.concat_tables(parts)


def _table(ratings: Interactions, *, is_known: bool) -> pa.Table:
    return pa.table(
        {
            "user_id": ratings.users[ratings.rows],
            "movie_index": ratings.movies,
            "rating": ratings.ratings,
            "timestamp": ratings.times,
            "is_known": np.full(ratings.num_ratings, is_known),
        }
    )


def _interactions(rated: pa.Table, num_movies: int) -> Interactions:
    columns = ("user_id", "movie_index", "rating", "timestamp")
    users, movies, ratings, times = (rated[name].to_numpy() for name in columns)
    return Interactions.of(users, movies, ratings, times, num_movies)
