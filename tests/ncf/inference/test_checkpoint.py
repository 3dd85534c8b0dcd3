from __future__ import annotations

import hashlib
import json
import pickletools
import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from ncf.config import ExperimentConfig, ModelConfig, TimeDecayConfig, TrainConfig
from ncf.data.preprocessor import Preprocessor
from ncf.errors import CheckpointError
from ncf.inference import checkpoint
from ncf.models.ncf import NCF
from ncf.models.weights import snapshot

EXPERIMENT = ExperimentConfig(
    model=ModelConfig(embedding_dim=4, hidden_dims=(6, 3), inputs=("numeric", "user", "genres")),
    train=TrainConfig(loss="smooth_l1", learning_rate=1 / 3),
    time_decay=TimeDecayConfig(apply_to="target", reference=date(2018, 9, 24)),
)
RECORD = {"epoch": 3, "metrics": {"validation_rmse": 0.1 + 0.2}}
FILES = (
    "SHA256SUMS",
    "checkpoint.json",
    "fitted.json",
    "model.safetensors",
    "movies.parquet",
    "users.parquet",
)
USERS = torch.tensor([0, 1, 2, 3], dtype=torch.int32)
MOVIES = torch.tensor([3, 0, 1, 2], dtype=torch.int32)


def built(preprocessor: Preprocessor, seed: int = 0) -> NCF:
    torch.manual_seed(seed)
    return NCF(EXPERIMENT.model, preprocessor).eval()


@pytest.fixture
def saved(preprocessor: Preprocessor, tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "best"
    checkpoint.save(folder, snapshot(built(preprocessor)), EXPERIMENT, preprocessor, RECORD)
    return folder


def test_a_loaded_checkpoint_predicts_the_same_and_has_its_record(
    preprocessor: Preprocessor, saved: Path, assert_same: Callable[[Any, Any], None]
) -> None:
    loaded = checkpoint.load(saved)
    with torch.no_grad():
        expected = built(preprocessor)(USERS, MOVIES)
        assert torch.equal(loaded.model.expected_ratings(USERS, MOVIES), expected)
    assert expected.std() > 0
    assert not loaded.model.network.training
    assert loaded.experiment == EXPERIMENT
    assert loaded.record == RECORD
    assert_same(loaded.preprocessor, preprocessor)
    assert loaded.experiment.time_decay == EXPERIMENT.time_decay


def test_the_folder_holds_exactly_the_documented_files_and_no_pickle(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == list(FILES)
    assert [file.name for file in saved.parent.iterdir()] == ["best"]
    for file in saved.iterdir():
        with pytest.raises(ValueError, match=r"opcode|pickle"):
            list(pickletools.genops(file.read_bytes()))


def test_saving_replaces_an_older_checkpoint_wholly(
    preprocessor: Preprocessor, saved: Path
) -> None:
    (saved / "left-over.txt").write_text("old")
    other = built(preprocessor, seed=1)
    checkpoint.save(saved, snapshot(other), EXPERIMENT, preprocessor, {"epoch": 9})
    loaded = checkpoint.load(saved)
    with torch.no_grad():
        assert torch.equal(loaded.model.expected_ratings(USERS, MOVIES), other(USERS, MOVIES))
    assert loaded.record == {"epoch": 9}
    assert sorted(file.name for file in saved.iterdir()) == list(FILES)


def test_an_interrupted_save_does_not_prevent_the_next(
    preprocessor: Preprocessor, saved: Path
) -> None:
    partial = saved.with_name("best.part")
    partial.mkdir()
    (partial / "junk").write_text("half")
    checkpoint.save(saved, snapshot(built(preprocessor)), EXPERIMENT, preprocessor, {"epoch": 4})
    assert checkpoint.load(saved).record == {"epoch": 4}
    assert not partial.exists()
    assert not (saved / "junk").exists()


def test_a_save_that_fails_leaves_nothing_under_the_final_name(
    preprocessor: Preprocessor, tmp_path: Path
) -> None:
    # The record is written last, and this one has no JSON form.
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.save(
            tmp_path / "new",
            snapshot(built(preprocessor)),
            EXPERIMENT,
            preprocessor,
            {"bad": object()},
        )
    assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "new")


def test_a_save_that_fails_keeps_the_older_checkpoint(
    preprocessor: Preprocessor, saved: Path
) -> None:
    with pytest.raises(TypeError):
        checkpoint.save(
            saved, snapshot(built(preprocessor)), EXPERIMENT, preprocessor, {"bad": object()}
        )
    assert checkpoint.load(saved).record == RECORD


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [None, 0, 0.5])
def test_a_missing_or_truncated_file_is_refused_with_the_folder(
    saved: Path, name: str, keep: float | None
) -> None:
    file = saved / name
    if keep is None:
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(CheckpointError, match=f"cannot read the checkpoint .*{saved.name}"):
        checkpoint.load(saved)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint .*nowhere"):
        checkpoint.load(tmp_path / "nowhere")


def edit(file: Path, **values: Any) -> None:
    """Change a file and its checksum, as if it had been written so."""
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    after = hashlib.sha256(file.read_bytes()).hexdigest()
    checksums = file.with_name("SHA256SUMS")
    checksums.write_text(checksums.read_text().replace(before, after))


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs the program sha256sum")
def test_the_checksums_are_those_of_another_program(saved: Path) -> None:
    listed = subprocess.run(
        ["sha256sum", *FILES[1:]], cwd=saved, capture_output=True, text=True, check=True
    )
    assert (saved / "SHA256SUMS").read_text() == listed.stdout


@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_with_one_other_byte_is_refused_and_named(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    if name.endswith(".json"):  # still JSON, with the same content
        changed = content.replace(b": ", b":  ", 1)
    else:
        changed = content[:-1] + bytes([content[-1] ^ 1])
    (saved / name).write_bytes(changed)
    with pytest.raises(CheckpointError, match=f"checksums in SHA256SUMS: {name}"):
        checkpoint.load(saved)


@pytest.mark.parametrize("version", [0, 1, 2, "3"])
def test_another_version_is_refused_and_named(saved: Path, version: object) -> None:
    edit(saved / "checkpoint.json", format_version=version)
    with pytest.raises(CheckpointError, match=f"has format version {version}, .* version 3"):
        checkpoint.load(saved)


def test_another_version_of_the_fitted_state_is_refused(saved: Path) -> None:
    edit(saved / "fitted.json", format_version=99)
    with pytest.raises(CheckpointError, match="format version 99"):
        checkpoint.load(saved)


def test_a_configuration_that_this_program_does_not_know_is_refused(saved: Path) -> None:
    edit(saved / "checkpoint.json", experiment={"model": {"attention_heads": 4}})
    with pytest.raises(CheckpointError, match="attention_heads"):
        checkpoint.load(saved)


def test_a_model_that_fits_no_memory_is_refused_by_its_shapes(saved: Path) -> None:
    changed = EXPERIMENT.model_copy(update={"model": ModelConfig(embedding_dim=10**9)})
    edit(saved / "checkpoint.json", experiment=changed.model_dump(mode="json"))
    with pytest.raises(CheckpointError, match=r"3 x 4 instead of 3 x 1000000000"):
        checkpoint.load(saved)


def test_a_file_that_is_not_listed_is_refused_and_named(saved: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "README.md"):
        (saved / name).write_bytes(b"of others")
    checkpoint.load(saved)
    (saved / "history.parquet").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"SHA256SUMS does not list history\.parquet"):
        checkpoint.load(saved)
    (saved / "history.parquet").unlink()
    listed = saved / "SHA256SUMS"
    lines = listed.read_text().splitlines(keepends=True)
    listed.write_text("".join(line for line in lines if "safetensors" not in line))
    with pytest.raises(CheckpointError, match=r"does not list model\.safetensors"):
        checkpoint.load(saved)
    listed.write_text("".join(lines) + "0" * 64 + "  ../../etc/passwd\n")
    with pytest.raises(CheckpointError, match="files of other folders"):
        checkpoint.load(saved)


def test_weights_of_another_shape_are_refused(saved: Path) -> None:
    changed = EXPERIMENT.model_copy(update={"model": ModelConfig(embedding_dim=5)})
    edit(saved / "checkpoint.json", experiment=changed.model_dump(mode="json"))
    with pytest.raises(CheckpointError, match=r"the state_dict .* \(3 x 4 instead of 3 x 5\)"):
        checkpoint.load(saved)


@pytest.mark.parametrize("content", ["[]", "3", '{"format_version": 3}', '"text"'])
def test_json_of_another_form_is_refused(saved: Path, content: str) -> None:
    (saved / "checkpoint.json").write_text(content)
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        checkpoint.load(saved)
