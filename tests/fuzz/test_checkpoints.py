"""A damaged checkpoint is refused, or gives what the undamaged one gives."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ncf
from ncf.errors import CheckpointError
from tests.fuzz.mutation import Damage, damaged, damages
from tests.ray_jobs.made import CLOSED, IDS, kept


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(kept(tmp_path_factory.mktemp("stored"), CLOSED).paths.checkpoint.path)


FILES = ("SHA256SUMS", "checkpoint.json", "fitted.json", "history.parquet", "model.safetensors",
         "movies.parquet", "users.parquet")  # fmt: skip


@given(name=st.sampled_from(FILES), changes=damages())
def test_a_damaged_file(stored: Path, name: str, changes: list[Damage]) -> None:
    expected = ncf.load(stored).predict(10, IDS)
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(stored, Path(folder) / "checkpoint")
        (copy / name).write_bytes(damaged((copy / name).read_bytes(), changes))
        refusal = ""
        try:
            found = ncf.load(copy)
        except CheckpointError as refused:
            refusal = str(refused)
        if refusal:
            assert len(refusal) < 2_000
        else:
            np.testing.assert_array_equal(found.predict(10, IDS), expected)
