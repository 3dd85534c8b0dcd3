"""Train the choice model that is kept.

First on the training rows, with ridge, epoch and power chosen on the validation users; then, unless
``final.refit_on_validation`` is false, again on both. The test rows are read once, to score it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from foundation.storage import Storage
from ingest.raw_data import RawData
from ncf.choice_config import ChoiceConfig
from ncf.config import SplitConfig
from ncf.data.dataset import PreparedDataset
from ncf.inference.choice_checkpoint import FORMAT_VERSION
from ray_jobs.results.choices import ChoiceMetrics
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage, canonical, key_of, unfinished_work
from ray_jobs.stages.choice_search import BestChoice
from ray_jobs.stages.provenance import provenance
from ray_jobs.training.run_tasks import Train, train_tasks
from ray_jobs.training.tasks import ChoiceProtocol, ChoiceTask, TrainingResult
from ray_jobs.training.workers import Workers

logger = logging.getLogger(__name__)

SELECTION: Final = "choice"
"""Name of the training that chooses, in progress lines."""

REFIT: Final = "choice, refit"
"""Name of the training on training and validation rows."""


@dataclass(frozen=True)
class ChoiceTrainInputs:
    """Everything that the final choice model depends on."""

    raw: RawData
    split: SplitConfig
    selection: PreparedDataset
    final: PreparedDataset
    choice: ChoiceConfig
    protocol: ChoiceProtocol
    num_workers: int
    beside_ratings: bool
    """Whether there is a rating model too."""
    checkpoint_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class FinalChoiceModel:
    """The choice model of a run."""

    checkpoint: Storage
    metrics: ChoiceMetrics
    prepared: PreparedDataset
    """The data whose vocabularies it uses."""


@canonical.register
def _(value: FinalChoiceModel) -> Any:
    return value.metrics.config_hash


def train_choices(
    workspace: Workspace,
    raw: RawData,
    prepared: PreparedDataset,
    final_data: PreparedDataset,
    best: BestChoice,
    workers: Workers,
) -> FinalChoiceModel:
    """Train the final choice model: ``checkpoint/choice`` and ``choice_metrics.json``.

    Args:
        workspace: the run.
        raw: the data set.
        prepared: its prepared rows, whose validation users choose.
        final_data: what the final model learns from.
        best: the configuration.
        workers: what to train on.
    """
    config, paths = workspace.config, workspace.paths
    inputs = ChoiceTrainInputs(
        raw=raw,
        split=config.split,
        selection=prepared,
        final=final_data,
        choice=best.choice,
        protocol=best.protocol,
        num_workers=config.scaling.world_size,
        beside_ratings=config.wants_ratings,
    )
    trained = partial(train_tasks, workers=workers, config=config)
    work = partial(_train, paths=paths, trained=trained, force=workspace.force)
    outputs = (paths.choice_metrics, paths.choice_checkpoint)
    workspace.update(Stage("train-choices", inputs, outputs, work))
    metrics = ChoiceMetrics.read(paths.choice_metrics)
    logger.info(f"   final choice model, test: {metrics.summary}")
    return FinalChoiceModel(paths.choice_checkpoint, metrics, final_data)


def _train(
    inputs: ChoiceTrainInputs,
    paths: RunPaths,
    trained: Train,
    *,
    force: bool,
) -> None:
    """The work of the stage; with ``force`` no interrupted training is continued."""
    folder = paths.ray("train-choices")
    where = unfinished_work(folder, key_of(inputs), force=force)
    tasks = _tasks(inputs, where)
    by_name = {result.name: result for result in trained(tasks)}
    selection, final = by_name[tasks[0].name], by_name[tasks[-1].name]
    if not inputs.beside_ratings:
        paths.checkpoint.delete()  # of an earlier run of this name, which had a rating model
    paths.choice_checkpoint.delete()
    (where / "model").copy_to(paths.choice_checkpoint)
    folder.delete()
    paths.choice_metrics.write_json(_metrics(inputs, selection, final))


def _tasks(inputs: ChoiceTrainInputs, where: Storage) -> list[ChoiceTask]:
    """The choice of ridge, epoch and power, and the training of the final model."""
    task = ChoiceTask(
        SELECTION,
        inputs.selection,
        inputs.choice,
        inputs.protocol,
        score_test=True,
        model=where / "model",
        state=where / "selection",
    )
    if inputs.final is inputs.selection:
        return [task]
    selection = replace(task, score_test=False, model=None)
    return [
        selection,
        replace(
            task,
            name=REFIT,
            prepared=inputs.final,
            as_chosen_in=selection.name,
            state=where / "refit",
        ),
    ]


def _metrics(
    inputs: ChoiceTrainInputs, selection: TrainingResult, final: TrainingResult
) -> dict[str, Any]:
    assert selection.choice
    seconds = sum({each.name: each.seconds for each in (selection, final)}.values())
    return {
        "dataset": inputs.raw.name,
        "synthetic": inputs.raw.synthetic,
        "split": inputs.split.model_dump(mode="json"),
        "seed": inputs.choice.network.seed,
        "config_hash": key_of(inputs),
        "member": inputs.choice.member,
        "choice": selection.choice.model_dump(mode="json"),
        "num_given": inputs.protocol.num_given,
        "min_ratings": inputs.protocol.min_ratings,
        "metric": inputs.protocol.metric,
        "refit_on_validation": inputs.final is not inputs.selection,
        "validation": selection.validation,
        "test": final.test,
        "epochs": selection.epochs,
        "wall_seconds": round(seconds, 3),
        **provenance(inputs.raw),
    }
