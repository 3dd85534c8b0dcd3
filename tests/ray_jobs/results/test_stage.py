from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from foundation.storage import Storage
from ncf.config import SplitConfig
from ray_jobs.config import JobConfig
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage, fingerprint, key_of


@dataclass(frozen=True)
class Part:
    number: int


@dataclass(frozen=True)
class Inputs:
    text: str
    split: SplitConfig
    parts: tuple[Part, ...] = ()


INPUTS = Inputs("a", SplitConfig(), (Part(1),))


@pytest.mark.parametrize(
    "changed",
    [
        replace(INPUTS, text="b"),
        replace(INPUTS, split=SplitConfig(seed=43)),
        replace(INPUTS, parts=(Part(2),)),
        replace(INPUTS, parts=(Part(1), Part(1))),
    ],
)
def test_each_declared_input_is_part_of_the_key(changed: Inputs) -> None:
    assert key_of(changed) != key_of(INPUTS)
    assert key_of(replace(changed)) == key_of(changed)


def test_inputs_without_a_fingerprint_are_refused() -> None:
    with pytest.raises(TypeError, match="a stage cannot depend on a set"):
        fingerprint({1, 2})
    with pytest.raises(TypeError, match="function"):
        key_of(replace(INPUTS, text=fingerprint))  # type: ignore[arg-type]


def write_text(inputs: Inputs, file: Storage, done: list[str]) -> None:
    file.write_text(inputs.text)
    done.append(inputs.text)


def test_a_stage_is_done_again_if_an_input_changed(tmp_path: Path) -> None:
    workspace = Workspace(JobConfig(storage=str(tmp_path), name="run"))
    file, done = workspace.run / "text", list[str]()

    def update(inputs: Inputs) -> str:
        work = partial(write_text, file=file, done=done)
        workspace.update(Stage("stage", inputs, (file,), work))
        return file.read_bytes().decode()

    assert update(INPUTS) == "a"
    assert update(INPUTS) == "a"
    assert update(replace(INPUTS, text="b")) == "b"
    assert update(replace(INPUTS, text="b", split=SplitConfig(seed=1))) == "b"
    assert done == ["a", "b", "b"]
