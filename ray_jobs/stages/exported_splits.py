"""The rows of the splits of a run, or of all its folds, written for other programs."""

from __future__ import annotations

from pathlib import Path

from ray_jobs.results.original_ids import OriginalIds
from ray_jobs.results.run import Workspace
from ray_jobs.results.split_files import write_splits
from ray_jobs.stages.cross_validation import fold_config, folds_of
from ray_jobs.stages.graph import Stages


def export_splits(stages: Stages, folder: Path) -> None:
    """Write the splits of a run; of one with folds those of each fold, in folders of their names.

    Raises:
        OSError: if they cannot be written.
    """
    config = stages.workspace.config
    runs = {"": stages}
    if folds := folds_of(config):
        runs = {
            fold: Stages(
                Workspace(fold_config(config, fold), stages.workspace.redo), stages.workers
            )
            for fold in folds
        }
    write_splits(
        folder,
        {name: (run.prepared, OriginalIds.of(run.raw.folder)) for name, run in runs.items()},
    )
