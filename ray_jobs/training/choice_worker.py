"""Train a choice task on every worker of a group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import distributed

from foundation.storage import Storage
from ncf.data.placement import Placement
from ncf.data.sampling import Shard
from ncf.evaluation.choice_data import ChoiceData, Split
from ncf.evaluation.choice_selection import ValidationUsers
from ncf.evaluation.ranking_metrics import RankingMetric
from ncf.inference import choice_checkpoint
from ncf.models.choice.base import ChoiceModel
from ncf.training.choice.fit import ModelFit, Step, num_steps
from ncf.training.choice.loop import ChoiceTraining
from ncf.training.choice.state import load_state, save_state
from ray_jobs.results.rankings import write_rankings
from ray_jobs.training.saved_state import read_state, write_state
from ray_jobs.training.scratch import scratch_folder
from ray_jobs.training.split_cache import SplitCache
from ray_jobs.training.tasks import ChoiceTask, Report, TrainingResult, rankings_file
from ray_jobs.training.telemetry import search_metric
from ray_jobs.training.worker_context import data_parallel


def train_choice_task(task: ChoiceTask, rows: SplitCache, report: Report) -> TrainingResult:
    """Train one choice model; all workers of the group must call this.

    Args:
        task: what to train.
        rows: its ratings.
        report: called after every step; training stops if it returns False, and then no test row is
            scored.

    Raises:
        NcfError: if training diverges, or cannot continue from its state.
        StorageError: if the model or the rankings cannot be stored.
    """
    started = time.perf_counter()
    shard, data = rows.shard, rows.choices(task.protocol)
    users = ValidationUsers(data, RankingMetric.parse(task.protocol.metric))
    fit = ModelFit(
        task.choice,
        data.train,
        task.prepared.preprocessor,
        _OnFirstWorker(users, shard, rows.device) if data.validation else None,
        task.protocol.mask,
        shard=shard,
        device=rows.device,
        data_parallel=partial(data_parallel, shard=shard) if shard.world_size > 1 else None,
        resume=read_state(task.state, load_state) if task.state else None,
        after_epoch=partial(_save_state, shard=shard, stored=task.state),
    )
    epochs: list[dict[str, Any]] = []
    is_stopped = False
    for step in fit:
        epochs.append(_metrics(task, step, fit.best_step, epochs))
        is_stopped = not report(epochs[-1])
        if is_stopped:
            break
    validation = test = None
    if not is_stopped and shard.rank == 0:
        validation = _scores(task, fit, data, "validation")
        test = _scores(task, fit, data, "test") if task.score_test else None
        if task.model:
            _store_model(task, fit, data, task.model)
    return TrainingResult(
        name=task.name,
        seed=task.choice.network.seed,
        best_epoch=fit.best_step,
        epochs=tuple(epochs),
        validation=validation,
        test=test,
        seconds=time.perf_counter() - started,
        rows=Placement(),
        choice=fit.chosen,
    )


def _save_state(training: ChoiceTraining, shard: Shard, stored: Storage | None) -> None:
    if stored and shard.rank == 0:
        write_state(training.state(), stored, save_state)


class _OnFirstWorker:
    """Judges models on the group's first worker; all workers get what it finds, so that all choose
    the same."""

    def __init__(self, users: ValidationUsers, shard: Shard, device: torch.device) -> None:
        self._users = users
        self._shard = shard
        self._device = device

    def value(self, model: ChoiceModel) -> float:
        """The metric of validation users' rankings."""
        return self._shared(lambda: self._users.value(model))

    def choose(self, models: Iterable[ChoiceModel], tolerance: float) -> int:
        """The number of the best one."""
        return round(self._shared(lambda: self._users.choose(models, tolerance)))

    def _shared(self, judge: Callable[[], float]) -> float:
        found = torch.zeros((), dtype=torch.float64, device=self._device)
        if self._shard.rank == 0:
            found += judge()
        if self._shard.world_size > 1:
            distributed.broadcast(found, src=0)
        return float(found)


def _metrics(
    task: ChoiceTask, step: Step, best_step: int, earlier: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a step reports: to Ray, to the search and to progress lines."""
    metrics: dict[str, Any] = {
        "task": task.name,
        "epoch": step.number,
        "max_epochs": num_steps(task.choice),
        "best_epoch": best_step,
        "seconds": step.seconds,
    }
    if step.train_loss is not None:
        metrics["train_loss"] = step.train_loss
    if step.validation is not None:
        name = task.protocol.metric
        values = [each[f"validation_{name}"] for each in earlier] + [step.validation]
        metrics |= {f"validation_{name}": step.validation, f"best_validation_{name}": max(values)}
        metrics |= {"metric": search_metric(name).title, "validation": step.validation}
    return metrics


def _scores(
    task: ChoiceTask, fit: ModelFit, data: ChoiceData, split: Split
) -> dict[str, Any] | None:
    """Figures of each member's rankings of a split's users; those of test users are stored."""
    holdout = data.of(split)
    if holdout is None:
        return None
    scores: dict[str, Any] = {}
    for member, model in fit.models.items():
        ranked = data.rank(model, holdout)
        scores[member] = data.score(ranked, holdout).to_json()
        if split == "test" and task.rankings:
            write_rankings(
                ranked, holdout, task.rankings / rankings_file(task.choice.network.seed, member)
            )
    return scores


def _store_model(task: ChoiceTask, fit: ModelFit, data: ChoiceData, folder: Storage) -> None:
    record = {"best_step": fit.best_step, "seed": task.choice.network.seed}
    with scratch_folder() as scratch:
        choice_checkpoint.save(
            scratch / "choice",
            fit.models,
            fit.chosen,
            task.prepared.preprocessor,
            data.train,
            data.held_out,
            record,
        )
        Storage.at(scratch / "choice").copy_to(folder)
