"""Training in the job's own process; tests/ray_jobs/test_on_ray.py compares it with workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from ray.train import Checkpoint, UserCallback
from safetensors.torch import load_file

from foundation.storage import Storage
from ncf.data.dataset import PreparedDataset
from ray_jobs.cluster.resources import Resources, trial_groups
from ray_jobs.config import JobConfig, with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.training.tasks import TaskResult, TrainingTask
from ray_jobs.training.torch_trainers import train_tasks
from tests.ray_jobs.small import IMPOSSIBLE, job

Weights = dict[str, torch.Tensor]


class Epochs(UserCallback):
    """Remembers epochs, and interrupts the training after so many."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.seen: list[tuple[str, int]] = []
        self._interrupt_after = interrupt_after

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        if "epoch" in metrics[0]:
            self.seen.append((metrics[0]["task"], metrics[0]["epoch"]))
            if len(self.seen) == self._interrupt_after:
                raise KeyboardInterrupt


@pytest.fixture
def config(storage: Path) -> JobConfig:
    train = {"epochs": 3, "batch_size": 512, "patience": 0}
    return job(storage, scaling={"num_workers": 0}, train=train, model={"dropout": 0.3})


def tasks_of(config: JobConfig, prepared: PreparedDataset, **changes: Any) -> list[TrainingTask]:
    experiment = with_parameters(config.experiment, changes)
    first = TrainingTask("first", prepared, experiment, save_models=True)
    return [first, replace(first, name="second", stop_at_best_of="first")]


def comparable(results: list[TaskResult]) -> list[TaskResult]:
    """Without what depends on the clock."""
    return [
        replace(each, seconds=0.0, epochs=tuple(epoch | {"seconds": 0} for epoch in each.epochs))
        for each in results
    ]


def weights(checkpoint: Checkpoint) -> list[Weights]:
    with checkpoint.as_directory() as folder:
        return [
            load_file(Path(folder) / name / "last" / "model.safetensors")
            for name in ("first", "second")
        ]


def test_an_interrupted_training_continues_as_if_it_had_not_been(
    config: JobConfig, prepared: PreparedDataset, tmp_path: Path
) -> None:
    tasks, resources = tasks_of(config, prepared), Resources.of(config)
    whole, in_parts = Storage.at(str(tmp_path / "whole")), Storage.at(str(tmp_path / "parts"))
    all_epochs, before, after = Epochs(), Epochs(interrupt_after=2), Epochs()
    threads = torch.get_num_threads()

    expected, expected_checkpoint = train_tasks(tasks, resources, whole, [all_epochs])
    with pytest.raises(KeyboardInterrupt):
        train_tasks(tasks, resources, in_parts, [before])
    found, checkpoint = train_tasks(tasks, resources, in_parts, [after])

    assert all_epochs.seen[:3] == [("first", 1), ("first", 2), ("first", 3)]
    assert before.seen + after.seen == all_epochs.seen
    assert comparable(found) == comparable(expected)
    for ours, theirs in zip(weights(checkpoint), weights(expected_checkpoint), strict=True):
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name
    assert len(list((tmp_path / "parts").iterdir())) == 2  # one checkpoint, and its name
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model.embedding_dim": IMPOSSIBLE}, "training failed: .*allocate"),
        ({"train.learning_rate": 1e38, "train.loss": "mse"}, "training failed: .*diverged"),
    ],
)
def test_a_failure_is_told_in_one_sentence(
    config: JobConfig,
    prepared: PreparedDataset,
    tmp_path: Path,
    changes: dict[str, Any],
    reason: str,
) -> None:
    tasks = tasks_of(config, prepared, **changes)

    with pytest.raises(TrainingError, match=reason):
        train_tasks(tasks, Resources.of(config), Storage.at(str(tmp_path)))


def test_it_takes_nothing_from_the_cluster(config: JobConfig) -> None:
    (group,) = trial_groups(config)

    assert group == Resources.of(config)
    assert not group.use_gpu
    assert group.description == "in the job's own processes"


def test_a_gpu_needs_a_worker() -> None:
    with pytest.raises(ValidationError, match="use_gpu = true needs a worker"):
        JobConfig.model_validate({"scaling": {"num_workers": 0, "use_gpu": True}})
