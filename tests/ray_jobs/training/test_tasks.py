"""Training tasks that depend on earlier ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from ncf.config import ExperimentConfig
from ncf.data.placement import Placement
from ray_jobs.training.tasks import TrainingResult, TrainingTask

TASK = TrainingTask("a", cast(Any, None), ExperimentConfig())


def result(name: str, best_epoch: int) -> TrainingResult:
    return TrainingResult(
        name=name,
        seed=0,
        best_epoch=best_epoch,
        epochs=(),
        validation=None,
        test=None,
        seconds=1.0,
        rows=cast(Placement, None),
    )


def test_a_task_stops_after_as_many_epochs_as_the_best_one_of_the_task_it_names() -> None:
    refit = replace(TASK, name="c", stop_at_best_of="a")

    found = refit.after([result("a", 3), result("b", 5)])

    assert isinstance(found, TrainingTask)
    assert found.experiment.train.stop_after == 3
    assert found.experiment.model_dump(exclude={"train": {"stop_after"}}) == (
        TASK.experiment.model_dump(exclude={"train": {"stop_after"}})
    )
    assert found.name == "c"


def test_a_task_of_its_own_is_left_as_it_is() -> None:
    assert TASK.after([result("b", 5)]) is TASK
