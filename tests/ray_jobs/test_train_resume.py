"""A training run that continues after its workers, or all of it, were killed."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import fs
from safetensors.torch import load_file

from ncf.data.dataset import PreparedDataset
from ncf.models.targets import Objective
from ncf.training.loop import fit
from ncf.training.trainer import build
from ray_jobs.cli import load_config
from tests.support import Running, assert_all_end, left_after, processes_with, running_module

pytestmark = pytest.mark.ray(seconds=100)

# Some 200 steps an epoch, so that epochs are seen while there are others to come.
SETTINGS = (
    "name=tiny",
    "data.source=synthetic",
    "data.synthetic.num_ratings=4000",
    "train.epochs=25",
    "train.batch_size=16",
    "train.patience=0",
    "train.compile=off",
    "model.embedding_dim=4",
    "model.hidden_dims=[8]",
    "model.dropout=0.3",
    "final.refit_on_validation=false",
    "tune.num_trials=0",
    "ray.num_cpus=2",
)


def next_epoch(program: Running) -> int:
    """The number in the next line about an epoch."""
    assert program.process.stdout is not None
    said = []
    for line in program.process.stdout:
        said.append(line)
        found = re.search(r"epoch +(\d+)/25", line)
        if found:
            return int(found[1])
    raise AssertionError("the program ended without a line on an epoch:\n" + "".join(said))


def workers_of(mark: str) -> list[int]:
    """The processes that train."""
    return [p for p, command in processes_with(mark).items() if "RayTrainWorker" in command]


def uninterrupted(folder: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """The result of training on the data in ``folder``, in this process and without Ray."""
    torch.set_num_threads(1)  # as many as a worker has
    experiment = load_config([], SETTINGS).experiment
    (prepared_folder,) = (folder / "prepared").iterdir()
    prepared = PreparedDataset.open(fs.LocalFileSystem(), str(prepared_folder))
    train = prepared.rows("train")
    assert train is not None
    model = build(experiment, prepared.preprocessor, train)
    objective = Objective(experiment.train, experiment.time_decay, prepared.preprocessor)
    result = fit(model, train, prepared.rows("validation"), objective)
    return [epoch.as_dict() | {"seconds": 0} for epoch in result.epochs], result.last


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Epochs without their times, and the weights of the last."""
    run = folder / "runs" / "tiny"
    epochs = json.loads((run / "metrics.json").read_text())["epochs"]
    weights = load_file(run / "checkpoints" / "last" / "model.safetensors")
    return [epoch | {"seconds": 0} for epoch in epochs], weights


@pytest.mark.timeout(600)
def test_killed_workers_and_a_killed_job_leave_no_trace_in_the_weights(
    tmp_path: Path, at_the_end: ExitStack
) -> None:
    broken = tmp_path / "out"
    with running_module("ray_jobs.train", (*SETTINGS, f"storage={broken}")) as program:
        before = next_epoch(program)
        (worker,) = workers_of(program.mark)
        os.kill(worker, signal.SIGKILL)
        after = next_epoch(program)
        while after < before:
            after = next_epoch(program)
        program.process.kill()
        program.process.wait(timeout=30)
        # The agents of a Ray whose driver was killed take up to two minutes to notice.
        at_the_end.callback(assert_all_end, program.mark, 150)
    assert after < 25
    assert not (broken / "runs" / "tiny" / "metrics.json").exists()

    with running_module("ray_jobs.train", (*SETTINGS, f"storage={broken}")) as program:
        first = next_epoch(program)
        program.process.communicate(timeout=280)
        assert program.process.returncode == 0
        assert left_after(program.mark, 30) == {}
    assert first >= after
    epochs, weights = outcome(broken)
    expected_epochs, expected = uninterrupted(broken)
    assert epochs == expected_epochs
    assert len(epochs) == 25
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
    assert not (broken / "runs" / "tiny" / "ray" / "train").exists()
