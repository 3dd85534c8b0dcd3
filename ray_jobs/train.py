"""Train the chosen configuration and keep the model.

First on the training rows, with the validation rows deciding which epoch is best; then, unless
``final.refit_on_validation`` is false, again on both for that many epochs. The test rows are read
once, by the model that is kept.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import ray

from foundation.console import say
from foundation.storage import Storage
from ingest.dataset import RawData
from ncf.data.dataset import PreparedDataset
from ncf.evaluation.ranking import RANKED, RELEVANT_STARS
from ncf.inference import checkpoint
from ncf.inference.top_k import score_rankings
from ray_jobs.cli import main
from ray_jobs.cluster import preflight
from ray_jobs.cluster.hardware import hardware
from ray_jobs.cluster.resources import Resources
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import JobConfig, with_parameters
from ray_jobs.preprocess import ingest, preprocess
from ray_jobs.results.final_model import copy_checkpoint, load_model, rated_movies
from ray_jobs.results.run import STAGE_VERSION, Workspace, fingerprint
from ray_jobs.training.progress import epoch_progress
from ray_jobs.training.worker import TaskResult, TrainingTask, train_tasks
from ray_jobs.tune import BestTrial, search

PACKAGES = ("ray", "torch", "optuna", "pyarrow", "pandas", "numpy", "aiohttp")


@dataclass(frozen=True)
class Trained:
    """The model that was kept."""

    metrics: dict[str, Any]
    """Content of ``metrics.json``."""
    prepared: PreparedDataset
    """The data whose vocabularies it uses."""


def train(
    workspace: Workspace, raw: RawData, prepared: PreparedDataset, chosen: BestTrial
) -> Trained:
    """Train the final model: ``checkpoint/``, ``checkpoints/{best,last}`` and ``metrics.json``."""
    config = workspace.config
    refit = config.final.refit_on_validation and bool(prepared.manifest.counts["validation"])
    final_data = preprocess(workspace, raw, train_on_validation=True) if refit else prepared
    metrics = workspace.run / "metrics.json"
    model = workspace.run / "checkpoint"
    key = fingerprint(
        STAGE_VERSION,
        checkpoint.FORMAT_VERSION,
        final_data.manifest.fingerprint,
        prepared.manifest.fingerprint,
        chosen.experiment.model_dump(mode="json"),
        config.scaling.num_workers,
        (RANKED, RELEVANT_STARS),
    )

    def work() -> None:
        ensure_ray(config)
        runs = _Runs(workspace, key)
        selection = runs.train(TrainingTask("train", prepared, chosen.experiment, not refit, True))
        runs.keep("train/best", "checkpoints/best")
        runs.keep("train/last", "checkpoints/last")
        final = selection
        if refit:
            experiment = with_parameters(
                chosen.experiment, {"train.stop_after": selection.best_epoch}
            )
            final = runs.train(TrainingTask("refit", final_data, experiment, True, True))
            runs.keep("refit/last", "checkpoint")
        else:
            runs.keep("train/best", "checkpoint")
        runs.clean_up()
        found = _metrics(workspace, raw, chosen, selection, final, key)
        say(f"   rankings of up to {final_data.preprocessor.num_users:,} users")
        metrics.write_json(found | {"ranking": _ranking(model, final_data)})

    workspace.stage("train", key, [metrics, model], work)
    trained = Trained(metrics.read_json(), final_data)
    test = trained.metrics["test"]
    say(f"   kept model, test: RMSE {test['rmse']:.4f}, MAE {test['mae']:.4f}, R² {test['r2']:.4f}")
    return trained


class _Runs:
    """Training runs of this stage, one after the other."""

    def __init__(self, workspace: Workspace, key: str) -> None:
        self._workspace = workspace
        self._key = key[:16]
        self._resources = Resources.of(workspace.config)
        self._folder = workspace.run / "ray" / "train"
        self._checkpoint: Any = None
        for folder in self._folder.list_folders():
            if not folder.name.endswith(self._key):  # of other settings, never finished
                folder.delete()

    def train(self, task: TrainingTask) -> TaskResult:
        """Train one task in a worker group of its own, or go on where that was interrupted."""
        where = self._folder / f"{task.name}-{self._key}"
        if self._workspace.force:
            where.delete()
        with epoch_progress() as lines:
            (result,), self._checkpoint = train_tasks([task], self._resources, where, [lines])
        return result

    def keep(self, relative: str, name: str) -> None:
        """Copy a model of the latest run into the run's folder."""
        copy_checkpoint(self._checkpoint, relative, self._workspace.run / name)

    def clean_up(self) -> None:
        """Remove what Ray Train wrote; what is to be kept has been copied."""
        self._folder.delete()


def _ranking(model: Storage, prepared: PreparedDataset) -> dict[str, Any]:
    """Rankings of what users had not rated in training and validation rows, by their test rows."""
    return score_rankings(
        load_model(model),
        seen=rated_movies(prepared, ("train", "validation")),
        relevant=rated_movies(prepared, ("test",), RELEVANT_STARS),
    )


def _metrics(
    workspace: Workspace,
    raw: RawData,
    chosen: BestTrial,
    selection: TaskResult,
    final: TaskResult,
    key: str,
) -> dict[str, Any]:
    config = workspace.config
    return {
        "dataset": raw.name,
        "synthetic": raw.synthetic,
        "split": config.split.model_dump(mode="json"),
        "seed": chosen.experiment.train.seed,
        # Of everything that the model depends on: data, preparation and configuration.
        "config_hash": key,
        "loss": chosen.experiment.train.loss,
        "tuned_parameters": chosen.parameters,
        "best_epoch": selection.best_epoch,
        "refit_on_validation": final is not selection,
        "streamed": final.rows.streamed,
        # Validation figures come from the run that was trained without the validation rows.
        "validation": selection.validation,
        "test": final.test,
        "epochs": selection.epochs,
        "wall_seconds": round(selection.seconds + (0 if final is selection else final.seconds), 3),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "resources": {k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")},
        "hardware": hardware(),
        "raw": {k: v for k, v in asdict(raw).items() if k in ("tmdb_coverage", "notices")},
    }


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """The stages up to this one."""
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        raw = ingest(workspace)
        prepared = preprocess(workspace, raw)
        train(workspace, raw, prepared, search(workspace, prepared))


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run))
