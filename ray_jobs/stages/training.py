"""Train the final model with the best configuration.

First on the training rows, with the best epoch chosen on the validation rows; then, unless
``final.refit_on_validation`` is false, again on both for that many epochs. The test rows are read
once, to score the final model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from foundation.storage import Storage
from ingest.raw_data import RawData
from ncf.config import ExperimentConfig, SplitConfig
from ncf.data.dataset import PreparedDataset
from ncf.data.splits import SPLITS
from ncf.evaluation.ranking import RANKED, RELEVANT_STARS
from ncf.inference import checkpoint
from ncf.inference.top_k import score_rankings
from ray_jobs.config import NO_BLEND, BlendConfig
from ray_jobs.results.final_model import load_model, rated_movies
from ray_jobs.results.metrics import RunMetrics
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage, canonical, key_of, unfinished_work
from ray_jobs.results.undefined import shown
from ray_jobs.stages.blending import (
    ValidationPredictions,
    complete,
    member_inputs,
    member_tasks,
    scores,
)
from ray_jobs.stages.provenance import provenance
from ray_jobs.stages.stacking import stacked_tasks
from ray_jobs.stages.tuning import BestTrial
from ray_jobs.training.run_tasks import Run, run_tasks, train_beside
from ray_jobs.training.tasks import TrainingResult, TrainingTask
from ray_jobs.training.workers import Workers

logger = logging.getLogger(__name__)

SELECTION: Final = "train"
"""Name of the training that chooses the best epoch, in progress lines and files."""

REFIT: Final = "refit"
"""Name of the training on training and validation rows."""


@dataclass(frozen=True)
class FinalModel:
    """The model of a run, which predictions and recommendations come from."""

    checkpoint: Storage
    metrics: RunMetrics
    prepared: PreparedDataset
    """The data whose vocabularies it uses."""


@canonical.register
def _(value: FinalModel) -> Any:
    return value.metrics.config_hash


@dataclass(frozen=True)
class TrainInputs:
    """Everything that the final model and its metrics depend on."""

    raw: RawData
    split: SplitConfig
    selection: PreparedDataset
    """Its validation rows choose the best epoch."""
    final: PreparedDataset
    """The same data, or those whose training rows include the validation rows."""
    experiment: ExperimentConfig
    tuned_parameters: dict[str, Any]
    """The settings of ``experiment`` that the search chose."""
    num_workers: int
    metric: str = "rmse"
    """Name of the metric that chooses the best epoch."""
    blend: BlendConfig = NO_BLEND
    """What the network is blended with."""
    checkpoint_version: int = checkpoint.FORMAT_VERSION
    length_of_rankings: int = RANKED
    relevant_stars: float = RELEVANT_STARS

    @property
    def refit(self) -> bool:
        """Whether the model is trained again on training and validation rows."""
        return self.final is not self.selection


def train(
    workspace: Workspace,
    raw: RawData,
    prepared: PreparedDataset,
    final_data: PreparedDataset,
    best_trial: BestTrial,
    workers: Workers,
) -> FinalModel:
    """Train the final model: ``checkpoint/``, ``checkpoints/{best,last}`` and ``metrics.json``.

    Args:
        workspace: the run.
        raw: the data set.
        prepared: its prepared rows, whose validation rows choose the best epoch.
        final_data: what the final model learns from: the same, or the data with the validation rows
            among the training rows.
        best_trial: the configuration.
        workers: what to train on.
    """
    config, paths = workspace.config, workspace.paths
    inputs = TrainInputs(
        raw=raw,
        split=config.split,
        selection=prepared,
        final=final_data,
        experiment=best_trial.experiment,
        tuned_parameters=best_trial.parameters,
        num_workers=config.scaling.world_size,
        metric=config.tune.metric,
        blend=config.blend,
    )
    run = partial(run_tasks, workers=workers, config=config)
    work = partial(_train, paths=paths, run=run, force=workspace.force)
    workspace.update(Stage("train", inputs, (paths.metrics, paths.checkpoint), work))
    model = FinalModel(paths.checkpoint, RunMetrics.read(paths.metrics), final_data)
    test = model.metrics.test
    logger.info(
        f"   final model, test: RMSE {test.rmse:.4f}, MAE {test.mae:.4f}, R² {shown(test.r2)}"
    )
    return model


def _train(
    inputs: TrainInputs,
    paths: RunPaths,
    run: Run,
    *,
    force: bool,
) -> None:
    """The work of the stage.

    Args:
        inputs: what the model depends on.
        paths: where it goes.
        run: does tasks.
        force: do not continue an interrupted training.
    """
    key = key_of(inputs)
    folder = paths.ray("train")
    work = unfinished_work(folder, key, force=force)
    tasks, members = _tasks(inputs, work), work / "members"
    of_members = member_inputs(inputs.blend, inputs.selection, inputs.final)
    calls = member_tasks(of_members, members)
    by_name = {result.name: result for result in train_beside(calls, run)(tasks)}
    results = [by_name[task.name] for task in tasks]
    selection, final = _models(tasks[0]), _models(tasks[-1])
    for rest in stacked_tasks(
        of_members, inputs.experiment, results[0].best_epoch, selection / "best", members
    ):
        list(run(rest))
    (selection / "best").copy_to(paths.best_checkpoint)
    (selection / "last").copy_to(paths.last_checkpoint)
    # The refit ends at the best epoch of the selection.
    network = final / ("last" if inputs.refit else "best")
    completed = _completed(inputs, network, paths, members)
    folder.delete()  # the models have been copied
    logger.info(f"   rankings of up to {inputs.final.preprocessor.num_users:,} users")
    ranking = _ranking(paths.checkpoint, inputs)
    metrics = _metrics(inputs, key, results, ranking) | completed
    paths.metrics.write_json(RunMetrics.from_json(metrics).to_json())


def _completed(
    inputs: TrainInputs, network: Storage, paths: RunPaths, members: Storage
) -> dict[str, Any]:
    """Write the final model: its ``network``, and what is not learned by training that; the part of
    the metrics that depends on the latter."""
    names, known = inputs.blend.members, None
    if inputs.selection.manifest.counts["validation"]:
        selection = load_model(paths.best_checkpoint)
        known = ValidationPredictions.read(selection, inputs.selection, names, members)
    rated = rated_movies(inputs.final, SPLITS)
    complete(network, paths.checkpoint, known, names, members, rated)
    return scores(paths.checkpoint, inputs.final, known) if known else {}


def _tasks(inputs: TrainInputs, where: Storage) -> list[TrainingTask]:
    """The choice of the best epoch, and the training of the final model if it is another one."""
    selection = TrainingTask(
        SELECTION,
        inputs.selection,
        inputs.experiment,
        score_test=not inputs.refit,
        models=where / SELECTION / "models",
        state=where / SELECTION / "state",
        metric=inputs.metric,
    )
    if not inputs.refit:
        return [selection]
    return [
        selection,
        TrainingTask(
            REFIT,
            inputs.final,
            inputs.experiment,
            score_test=True,
            models=where / REFIT / "models",
            state=where / REFIT / "state",
            stop_at_best_of=SELECTION,
        ),
    ]


def _models(task: TrainingTask) -> Storage:
    assert task.models
    return task.models


def _ranking(model: Storage, inputs: TrainInputs) -> dict[str, Any]:
    """Rankings of what users had not rated in training and validation rows, by their test rows."""
    return score_rankings(
        load_model(model),
        seen=rated_movies(inputs.final, ("train", "validation")),
        relevant=rated_movies(inputs.final, ("test",), inputs.relevant_stars),
    )


def _metrics(
    inputs: TrainInputs, key: str, results: Sequence[TrainingResult], ranking: dict[str, Any]
) -> dict[str, Any]:
    selection, final = results[0], results[-1]
    return {
        "dataset": inputs.raw.name,
        "synthetic": inputs.raw.synthetic,
        "split": inputs.split,
        "seed": inputs.experiment.train.seed,
        "config_hash": key,
        "loss": inputs.experiment.train.loss,
        "tuned_parameters": inputs.tuned_parameters,
        "best_epoch": selection.best_epoch,
        "refit_on_validation": inputs.refit,
        "streamed": final.rows.streamed,
        # Validation figures come from the run that was trained without the validation rows.
        "validation": selection.validation,
        "test": final.test,
        "epochs": selection.epochs,
        "wall_seconds": round(sum(result.seconds for result in results), 3),
        **provenance(inputs.raw),
        "ranking": ranking,
    }
