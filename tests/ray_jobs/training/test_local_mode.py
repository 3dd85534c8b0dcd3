"""Training in the job's own process; tests/ray_jobs/test_on_ray.py compares it with workers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from foundation.errors import StorageError
from foundation.storage import Storage
from ncf.data.dataset import PreparedDataset
from ray_jobs.cluster.resources import GroupPlan, Resources
from ray_jobs.config import JobConfig, with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.training import progress
from ray_jobs.training.local_mode import LocalMode
from ray_jobs.training.run_tasks import train_tasks
from ray_jobs.training.split_cache import SplitCache
from ray_jobs.training.tasks import Report, TrainingResult, TrainingTask
from ray_jobs.training.worker import train_rating_task
from ray_jobs.training.workers import Workers
from tests.ray_jobs.small import IMPOSSIBLE, job

Weights = dict[str, torch.Tensor]


def epochs_in(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """The tasks and the numbers of the epochs that were logged since the last call."""
    found = [re.search(r"(\w+) +epoch +(\d+)/", record.getMessage()) for record in caplog.records]
    caplog.clear()
    return [(match[1], int(match[2])) for match in found if match]


@pytest.fixture
def config(storage: Path) -> JobConfig:
    train = {"epochs": 3, "batch_size": 512, "patience": 0}
    return job(storage, scaling={"num_workers": 0}, train=train, model={"dropout": 0.3})


def tasks_of(
    config: JobConfig, prepared: PreparedDataset, folder: Path, **changes: Any
) -> list[TrainingTask]:
    experiment = with_parameters(config.experiment, changes)
    first, second = (
        TrainingTask(
            name,
            prepared,
            experiment,
            models=Storage.at(folder / name / "models"),
            state=Storage.at(folder / name / "state"),
        )
        for name in ("first", "second")
    )
    return [first, replace(second, stop_at_best_of="first")]


def comparable(results: list[TrainingResult]) -> list[TrainingResult]:
    """Without what depends on the clock."""
    return [
        replace(each, seconds=0.0, epochs=tuple(epoch | {"seconds": 0} for epoch in each.epochs))
        for each in results
    ]


def weights(folder: Path) -> list[Weights]:
    return [
        load_file(folder / name / "models" / "last" / "model.safetensors")
        for name in ("first", "second")
    ]


def test_an_interrupted_training_continues_as_if_it_had_not_been(
    config: JobConfig,
    prepared: PreparedDataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    whole, in_parts = tmp_path / "whole", tmp_path / "parts"
    threads = torch.get_num_threads()
    nothing = Workers(Storage.at(tmp_path / "workers"), max_failures=0)

    def trained(folder: Path) -> list[TrainingResult]:
        return list(train_tasks(tasks_of(config, prepared, folder), nothing, config))

    expected = trained(whole)
    all_epochs = epochs_in(caplog)
    with monkeypatch.context() as patch:
        # Before the second epoch has been saved.
        patch.setattr(progress, "describe", interrupt_after(2))
        with pytest.raises(KeyboardInterrupt):
            trained(in_parts)
    before = epochs_in(caplog)
    found = trained(in_parts)

    assert all_epochs[:3] == [("first", 1), ("first", 2), ("first", 3)]
    assert before == all_epochs[:1]
    assert epochs_in(caplog) == all_epochs[1:]
    assert comparable(found) == comparable(expected)
    for ours, theirs in zip(weights(in_parts), weights(whole), strict=True):
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name
    # One state, and its name.
    assert len(list((in_parts / "first" / "state").iterdir())) == 2
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("state_every", "again_from"), [(0.0, 3), (1000.0, 1)])
def test_a_trial_goes_on_after_its_state_and_leaves_none(
    config: JobConfig,
    prepared: PreparedDataset,
    tmp_path: Path,
    state_every: float,
    again_from: int,
) -> None:
    task = TrainingTask(
        "trial",
        prepared,
        with_parameters(config.experiment, {"train.epochs": 4}),
        state=Storage.at(tmp_path / "state"),
        state_every=state_every,
        keeps_state=False,
    )
    reported: list[int] = []
    results: list[TrainingResult] = []

    def until_lost(metrics: dict[str, Any]) -> bool:
        if metrics["epoch"] == 3:
            raise RuntimeError("lost")
        return True

    def report(metrics: dict[str, Any]) -> bool:
        reported.append(metrics["epoch"])
        return True

    def train(report: Report, task: TrainingTask = task) -> None:
        rows = SplitCache(prepared, torch.device("cpu"))
        LocalMode(1).run(lambda: results.append(train_rating_task(task, rows, report)))

    with pytest.raises(RuntimeError, match="lost"):
        train(until_lost)
    train(report)
    train(lambda _: True, replace(task, state=None))

    assert reported == list(range(again_from, 5))
    disturbed, undisturbed = comparable(results)
    assert disturbed == undisturbed
    assert not (tmp_path / "state").exists()


def test_what_was_asked_to_stop_can_be_continued_by_others(
    config: JobConfig, prepared: PreparedDataset, tmp_path: Path
) -> None:
    """As when a node will be taken away."""
    experiment = with_parameters(config.experiment, {"train.epochs": 4})
    results: list[TrainingResult] = []
    for keeps_state in (True, False):
        state = Storage.at(tmp_path / str(keeps_state))
        task = TrainingTask("task", prepared, experiment, state=state, keeps_state=keeps_state)
        reported: list[int] = []

        def train(stop_after: int, task: TrainingTask = task, to: list[int] = reported) -> None:
            def report(metrics: dict[str, Any]) -> bool:
                to.append(metrics["epoch"])
                return bool(metrics["epoch"] < stop_after)

            rows = SplitCache(prepared, torch.device("cpu"))
            LocalMode(1).run(lambda: results.append(train_rating_task(task, rows, report)))

        train(stop_after=2)
        train(stop_after=9)
        assert reported == [1, 2, 3, 4]
        assert state.exists() is keeps_state


def test_a_state_that_cannot_be_stored_ends_no_trial(
    config: JobConfig,
    prepared: PreparedDataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    task = TrainingTask(
        "trial", prepared, config.experiment, state=Storage.at(tmp_path / "file" / "state")
    )
    rows = SplitCache(prepared, torch.device("cpu"))

    results: list[TrainingResult] = []

    def train(task: TrainingTask) -> None:
        LocalMode(1).run(lambda: results.append(train_rating_task(task, rows, lambda _: True)))

    train(replace(task, keeps_state=False))
    assert "the state of trial could not be stored" in caplog.text
    with pytest.raises((OSError, StorageError)):
        train(task)


def interrupt_after(count: int) -> Callable[[dict[str, Any]], str]:
    """``progress.describe`` that raises ``KeyboardInterrupt`` in call number ``count``."""
    described, calls = progress.describe, itertools.count(1)

    def describe(metrics: dict[str, Any]) -> str:
        if next(calls) == count:
            raise KeyboardInterrupt
        return described(metrics)

    return describe


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model.embedding_dim": IMPOSSIBLE}, "training of first failed: .*allocate"),
        (
            {"train.learning_rate": 1e38, "train.loss": "mse"},
            "training of first failed: training diverged",
        ),
    ],
)
def test_a_failure_is_told_in_one_sentence(
    config: JobConfig,
    prepared: PreparedDataset,
    tmp_path: Path,
    changes: dict[str, Any],
    reason: str,
) -> None:
    tasks = tasks_of(config, prepared, tmp_path, **changes)

    with pytest.raises(TrainingError, match=reason):
        list(train_tasks(tasks, Workers(Storage.at(tmp_path / "workers"), 0), config))


def test_a_training_that_is_stopped_reads_no_test_row(
    config: JobConfig, prepared: PreparedDataset, tmp_path: Path
) -> None:
    file = Storage.at(tmp_path / "predictions.parquet")
    task = TrainingTask("stopped", prepared, config.experiment, score_test=True, predictions=file)
    results: list[TrainingResult] = []

    def work() -> None:
        rows = SplitCache(prepared, torch.device("cpu"))
        results.append(train_rating_task(task, rows, lambda metrics: bool(metrics["epoch"] < 2)))

    LocalMode(1).run(work)

    (result,) = results
    assert len(result.epochs) == 2
    assert result.test is None
    assert not file.exists()


def test_it_takes_nothing_from_the_cluster(config: JobConfig) -> None:
    (group,) = GroupPlan.of(config, for_trials=True).fitting()

    assert group == Resources.of(config)
    assert not group.use_gpu
    assert group.description == "in the job's own processes"


def test_a_gpu_needs_a_worker() -> None:
    with pytest.raises(ValidationError, match="use_gpu = true needs a worker"):
        JobConfig.model_validate({"scaling": {"num_workers": 0, "use_gpu": True}})
