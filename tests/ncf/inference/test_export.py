"""Exported networks, run by other programs, against the model's own predictions."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch

from ncf.config import ModelConfig
from ncf.errors import InputError, UnsupportedError
from ncf.inference.export import Format, export
from ncf.inference.recommender import Recommender
from tests.ncf.inference.test_recommender import GAUSSIAN_PROCESS, PLAIN, drawn

ALL_INPUTS = ("user", "movie", "genres", "decade", "numeric", "time")
CONFIGS = {
    "plain": PLAIN,
    "content": ModelConfig(inputs=("genres", "decade"), embedding_dim=4, hidden_dims=(8, 4)),
    "all inputs": ModelConfig(
        inputs=ALL_INPUTS, embedding_dim=4, hidden_dims=(8,), biases=("movie",), gmf_dim=2
    ),
    "attention": ModelConfig(
        inputs=ALL_INPUTS, embedding_dim=4, hidden_dims=(8,), fusion="attention"
    ),
    "transformer": ModelConfig(
        inputs=ALL_INPUTS, embedding_dim=4, hidden_dims=(8,), fusion="transformer"
    ),
    "ordinal": ModelConfig(embedding_dim=4, hidden_dims=(8,), head="ordinal"),
}


def run(folder: Path, inputs: list[np.ndarray]) -> np.ndarray:
    """What the exported program predicts, from the names in export.json."""
    described = json.loads((folder / "export.json").read_text())
    file = folder / described["file"]
    if described["format"] == "torch":
        module = torch.export.load(file).module()
        return np.asarray(module(*map(torch.from_numpy, inputs)))
    names = [each["name"] for each in described["inputs"]]
    session = onnxruntime.InferenceSession(str(file))
    (found,) = session.run([described["output"]["name"]], dict(zip(names, inputs, strict=True)))
    return np.asarray(found)


@pytest.mark.parametrize("form", ["torch", "onnx"])
@pytest.mark.parametrize("name", CONFIGS)
def test_an_exported_network_predicts_the_same(
    name: str, form: Format, world: Any, tmp_path: Path
) -> None:
    made = drawn(world, CONFIGS[name])
    found = export(made, tmp_path / "out", form)
    assert (found.num_checked, found.largest_difference <= 1e-5) == (1000, True)
    model = Recommender(made)
    ids = {
        kind: dict(zip(*(table[c].to_pylist() for c in (kind, "index")), strict=True))
        for kind in ("user", "movie")
        for table in [pq.read_table(tmp_path / "out" / f"{kind}s.parquet")]
    }
    times = world.train.times.numpy().astype(np.int64)
    # Other numbers of rows than it was traced with; users that nothing is known of are 0.
    for rows in (1, 2, 7, 300):
        users, movies = np.arange(rows) % 130, np.arange(rows)[::-1] % 80
        inputs = [np.array([ids["user"].get(u, 0) for u in users.tolist()])]
        inputs += [np.array([ids["movie"][m] for m in movies.tolist()])]
        inputs += [times[:rows]] if model.looks_at_times else []
        expected = model.predict(users, movies, times[:rows])
        np.testing.assert_allclose(run(tmp_path / "out", inputs), expected, atol=1e-5)


def test_ids_of_texts_and_titles_are_written(world: Any, tmp_path: Path) -> None:
    made = drawn(world, PLAIN)
    titles = ("Matrix, The (1999)", *made.preprocessor.movies.titles[1:])
    texts = tuple(f"m{number}" for number in range(80))
    movies = replace(made.preprocessor.movies, titles=titles, external_ids=texts)
    users = tuple(f"u{number}" for number in range(120))
    preprocessor = replace(made.preprocessor, movies=movies, external_user_ids=users)
    export(replace(made, preprocessor=preprocessor), tmp_path / "out", "torch")
    first = pq.read_table(tmp_path / "out" / "movies.parquet").to_pylist()[0]
    assert first == {"movie": "m0", "index": 0, "title": "The Matrix (1999)"}
    first = pq.read_table(tmp_path / "out" / "users.parquet").to_pylist()[0]
    assert first == {"user": "u0", "index": 1}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out"]


def test_what_cannot_be_exported_is_refused(world: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="predicts from all ratings of a user"):
        export(drawn(world, GAUSSIAN_PROCESS), tmp_path / "out", "torch")
    with pytest.raises(UnsupportedError, match="predicts decayed ratings"):
        export(drawn(world, PLAIN, "target"), tmp_path / "out", "torch")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        export(drawn(world, PLAIN), tmp_path / "there", "torch")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["there"]


def test_a_missing_package_is_named(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"package onnx, .*movielens-ray-tune\[export\]"):
        export(drawn(world, PLAIN), tmp_path / "out", "onnx")


def test_the_model_is_as_before(world: Any, tmp_path: Path) -> None:
    made = drawn(world, PLAIN)
    export(made, tmp_path / "out", "torch")
    assert all(parameter.requires_grad for parameter in made.model.network.parameters())
