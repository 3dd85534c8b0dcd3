"""A comparison of choice models that is interrupted and continued, in the job's own process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ncf.choice_config import ChoiceConfig, EaseConfig, NetworkConfig
from ncf.data.dataset import PreparedDataset
from ray_jobs.config import JobConfig
from ray_jobs.results.run import Workspace
from ray_jobs.stages import choice_comparison
from ray_jobs.stages.choice_inputs import ChoiceCompareInputs
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.training.run_tasks import run_tasks
from ray_jobs.training.tasks import ChoiceProtocol, Task, TaskResult
from ray_jobs.training.workers import Workers
from tests.ray_jobs.small import job

SEEDS = (3, 5)
TASKS = ["choice seed 3", "choice seed 5", "choice seed 3, refit", "choice seed 5, refit"]
BASELINES = ["baseline most popular", "baseline most popular lately"]


@pytest.fixture
def config(storage: Path) -> JobConfig:
    return job(storage, name="small", task="choice")


@pytest.fixture
def inputs(prepared: PreparedDataset) -> ChoiceCompareInputs:
    """With a refit: the same rows under another fingerprint stand for those of both splits."""
    final = replace(prepared, manifest=replace(prepared.manifest, fingerprint="final"))
    return ChoiceCompareInputs(
        data=ComparedData(prepared, final),
        choice=ChoiceConfig(
            ease=EaseConfig(ridges=(20.0, 5.0)), network=NetworkConfig(epochs=2, dim=4)
        ),
        protocol=ChoiceProtocol(),
        seeds=SEEDS,
        score_test=True,
        baselines=("popular", "popular-lately"),
        trials_per_baseline=2,
        resamples=100,
        num_workers=0,
    )


class Trainer:
    """Does tasks here, and notes which; stops after some of them as Ctrl-C would."""

    def __init__(self, config: JobConfig, stop_after: int = 99) -> None:
        workers = Workers(Workspace(config).paths.ray("workers"), 0)
        self._run = partial(run_tasks, workers=workers, config=config)
        self._stop_after = stop_after
        self.trained: list[str] = []

    def __call__(self, tasks: Sequence[Task]) -> Iterator[TaskResult]:
        for result in self._run(tasks):
            self.trained.append(result.name)
            yield result
            if len(self.trained) == self._stop_after:
                raise KeyboardInterrupt


def compared(
    inputs: ChoiceCompareInputs, config: JobConfig, trainer: Trainer, *, force: bool = False
) -> Any:
    paths = Workspace(config).paths
    choice_comparison._compare(inputs, paths, trainer, force=force)
    return json.loads(Path(str(paths.choice_comparison)).read_text())


def test_only_what_is_missing_is_trained_and_fitted(
    inputs: ChoiceCompareInputs, config: JobConfig
) -> None:
    whole = Trainer(config)
    expected = compared(inputs, config, whole, force=True)
    assert whole.trained == TASKS + BASELINES
    names = [(entry["name"], len(entry["test"])) for entry in expected["entries"]]
    assert names == [
        ("most popular", 1),
        ("most popular lately", 1),
        ("EASE with content and context", 1),
        ("choice network", 2),
        ("product of both", 2),
    ]

    first = Trainer(config, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        compared(inputs, config, first, force=True)
    second = Trainer(config, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        compared(inputs, config, second)
    third = Trainer(config)
    found = compared(inputs, config, third)

    assert first.trained == TASKS[:3]
    assert second.trained == [TASKS[1], TASKS[3], BASELINES[0]]
    assert third.trained == [BASELINES[1]]
    assert found == expected


@pytest.mark.parametrize(
    ("change", "trained"),
    [
        ({}, []),
        ({"seeds": (3, 5, 6)}, ["choice seed 6", "choice seed 6, refit", *BASELINES]),
        ({"protocol": ChoiceProtocol(metric="recall@10")}, TASKS + BASELINES),
        ({"baselines": ("popular",)}, []),
        ({"choice": ChoiceConfig(member="ease")}, TASKS),
    ],
)
def test_what_changed_is_done_again(
    inputs: ChoiceCompareInputs,
    config: JobConfig,
    change: dict[str, Any],
    trained: list[str],
) -> None:
    compared(inputs, config, Trainer(config))
    trainer = Trainer(config)

    compared(replace(inputs, **change), config, trainer)

    assert trainer.trained == trained
    # No ranking is left of what was there before.
    folder = Path(str(Workspace(config).paths.rankings))
    members = 1 if "choice" in change else 3
    seeds = len(change.get("seeds", SEEDS))
    baselines = len(change.get("baselines", inputs.baselines))
    assert len(list(folder.iterdir())) == members * seeds + baselines
