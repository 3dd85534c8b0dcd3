"""The network as a program for other runtimes: ``torch.export`` or ONNX, with maps of ids.

::

    network.pt2 or network.onnx    users [B], movies [B], times [B] -> stars [B]
    users.parquet                  the index of each user: columns user, index
    movies.parquet                 the index of each movie: columns movie, index, title
    export.json                    inputs, output, scale and versions

Source: https://docs.pytorch.org/docs/stable/export.html and
https://docs.pytorch.org/docs/stable/onnx.html.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from ncf.data.preprocessor import Preprocessor
from ncf.errors import InputError, UnsupportedError
from ncf.inference.checkpoint import Checkpoint
from ncf.inference.stars import network_stars, rows_to_predict
from ncf.models.ncf import NCF

Format = Literal["torch", "onnx"]
FILES: Final[dict[Format, str]] = {"torch": "network.pt2", "onnx": "network.onnx"}
_CHECKED: Final = 1_000
"""Random pairs whose predictions are compared."""
_TOLERANCE: Final = 1e-4
"""Largest difference, in stars."""
_EXAMPLE: Final = 4
"""Rows with which the network is traced; the program takes any number."""


@dataclass(frozen=True)
class Exported:
    """What was written and compared."""

    folder: Path
    file: str
    num_checked: int
    """Pairs of which both programs' predictions were compared."""
    largest_difference: float
    """In stars."""


class _Stars(nn.Module):
    """Expected ratings in stars, within the range of the training ratings."""

    def __init__(self, network: NCF, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.network = network
        self.ends = preprocessor.rating_min, preprocessor.rating_max

    def forward(
        self, users: torch.Tensor, movies: torch.Tensor, times: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B], [B], [B] -> [B]``"""
        outputs = self.network(users, movies, times)
        return self.network.expected_rating(outputs).clamp(*self.ends)


def export(checkpoint: Checkpoint, folder: Path, form: Format) -> Exported:
    """Write the network of a checkpoint, read it again, and compare its predictions.

    ``folder`` appears whole or not at all. What the network is blended with is not part of it.

    Raises:
        InputError: if the folder is there and not empty.
        UnsupportedError: if the network is conditioned on histories or trained on decayed ratings,
            cannot be expressed in the format, or the packages for that are missing.
    """
    _refuse(checkpoint, folder, form)
    # A program for predictions has no use for gradients, and what is traced must not be shared.
    network = copy.deepcopy(checkpoint.model.network).requires_grad_(False).eval()
    stars = _Stars(network, checkpoint.preprocessor).eval()
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        example = _random_rows(checkpoint, _EXAMPLE)
        _write_program(stars, tuple(map(torch.from_numpy, example)), partial / FILES[form], form)
        checked, difference = _compare(checkpoint, partial / FILES[form], form)
        _write_ids(checkpoint.preprocessor, partial)
        text = json.dumps(_description(checkpoint, form), indent=2)
        (partial / "export.json").write_text(text + "\n", encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(folder, FILES[form], checked, difference)


def _refuse(checkpoint: Checkpoint, folder: Path, form: Format) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; name a new folder, or remove it")
    if checkpoint.model.uses_history:
        raise UnsupportedError(
            "a network with model.history.encoders predicts from all ratings of a user, which no "
            "file of a network holds; networks without encoders can be exported"
        )
    if checkpoint.experiment.time_decay.apply_to == "target":
        raise UnsupportedError(
            'a network that was trained with time_decay.apply_to = "target" predicts decayed '
            "ratings; those trained on stars can be exported"
        )
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise UnsupportedError(
                    f"ONNX files need the package {package}, which is not installed: "
                    "pip install 'movielens-ray-tune[export]'"
                )


def _random_rows(checkpoint: Checkpoint, count: int) -> list[npt.NDArray[np.int64]]:
    """Inputs of the network: users and movies ``[N]``, and times if it uses them; seeded."""
    preprocessor, draw = checkpoint.preprocessor, np.random.default_rng(0)
    users = draw.integers(0, preprocessor.num_users + 1, count)
    movies = draw.integers(0, len(preprocessor.movies), count)
    if not checkpoint.model.uses_time:
        return [users, movies]
    newest = preprocessor.decay_reference
    return [users, movies, draw.integers(newest // 2, newest + 1, count)]


def _write_program(
    stars: _Stars, example: tuple[torch.Tensor, ...], file: Path, form: Format
) -> None:
    """
    Raises:
        UnsupportedError: if the network cannot be expressed in the format.
    """
    names = ["users", "movies", "times"][: len(example)]
    batch = torch.export.Dim("batch", min=1)
    shapes = {name: {0: batch} for name in names}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            # It warns of packages that it could use.
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program = torch.export.export(stars, example, dynamic_shapes=shapes)
            if form == "torch":
                torch.export.save(program, file)
            else:
                torch.onnx.export(
                    program,
                    f=str(file),
                    input_names=names,
                    output_names=["stars"],
                    external_data=False,
                    verbose=False,
                )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise UnsupportedError(
            f"the network cannot be written as {file.name}: {str(error).splitlines()[0][:300]}"
        ) from error


def _compare(checkpoint: Checkpoint, file: Path, form: Format) -> tuple[int, float]:
    """The number of pairs, and the largest difference between the file's and our predictions.

    Raises:
        UnsupportedError: if they differ.
    """
    run = _runner(file, form)
    inputs = _random_rows(checkpoint, _CHECKED)
    times = inputs[2] if len(inputs) > 2 else np.zeros(_CHECKED, np.int64)
    rows = rows_to_predict(checkpoint.preprocessor, inputs[0], inputs[1], times)
    expected = network_stars(checkpoint, rows).numpy()
    difference = float(np.abs(run(inputs) - expected).max())
    if not difference <= _TOLERANCE:
        raise UnsupportedError(
            f"{file.name} predicts other ratings than the network: they differ by up to "
            f"{difference:.4g} stars. Please report it with the configuration of the model."
        )
    return _CHECKED, difference


def _runner(
    file: Path, form: Format
) -> Callable[[list[npt.NDArray[np.int64]]], npt.NDArray[np.float32]]:
    """What the written program predicts."""
    if form == "torch":
        module = torch.export.load(file).module()

        def of_torch(inputs: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
            found: npt.NDArray[np.float32] = module(*map(torch.from_numpy, inputs)).numpy()
            return found

        return of_torch
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file))
    names = [each.name for each in session.get_inputs()]

    def of_onnx(inputs: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        (found,) = session.run(None, dict(zip(names, inputs, strict=True)))
        return np.asarray(found)

    return of_onnx


def _write_ids(preprocessor: Preprocessor, folder: Path) -> None:
    """Which index stands for each user and movie; 0 for users that are not listed."""
    users, movies = preprocessor.user_ids, preprocessor.movies
    texts = preprocessor.external_user_ids
    table = {"user": users if texts is None else texts, "index": np.arange(1, len(users) + 1)}
    pq.write_table(pa.table(table), folder / "users.parquet")
    table = {
        "movie": movies.ids if movies.external_ids is None else movies.external_ids,
        "index": np.arange(len(movies)),
        "title": movies.display_titles,
    }
    pq.write_table(pa.table(table), folder / "movies.parquet")


def _description(checkpoint: Checkpoint, form: Format) -> dict[str, Any]:
    preprocessor = checkpoint.preprocessor
    inputs = {
        "users": "indices of users.parquet, 0 for an unknown user",
        "movies": "indices of movies.parquet",
        "times": "seconds since 1970-01-01 UTC",
    }
    names = list(inputs)[: 3 if checkpoint.model.uses_time else 2]
    return {
        "file": FILES[form],
        "format": form,
        "inputs": [
            {"name": name, "type": "int64", "shape": ["batch"], "meaning": inputs[name]}
            for name in names
        ],
        "output": {
            "name": "stars",
            "type": "float32",
            "shape": ["batch"],
            "meaning": "expected ratings in stars, clipped to the range of the training ratings",
        },
        "ratingMin": preprocessor.rating_min,
        "ratingMax": preprocessor.rating_max,
        "network": checkpoint.summary if checkpoint.blend is None else "network of a blend",
        "torch": torch.__version__,
    }
