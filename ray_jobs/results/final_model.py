"""The final model of a run, and the ratings that its users gave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs
from ray.train import Checkpoint

from foundation.storage import Storage
from ncf.data.dataset import PreparedDataset
from ncf.evaluation.ranking import SeenMovies
from ncf.inference import checkpoint
from ray_jobs.errors import NoModelError
from ray_jobs.results.run import Workspace


def final_model(workspace: Workspace) -> Storage:
    """Folder of the run's final model.

    Raises:
        NoModelError: if it has none.
    """
    stored = workspace.paths.checkpoint
    if not stored.exists():
        raise NoModelError(
            f"there is no trained model in {stored}. Make it with python -m ray_jobs.train and the "
            "same options."
        )
    return stored


def load_model(stored: Storage) -> checkpoint.Checkpoint:
    """A checkpoint from any storage."""
    if stored.is_local:
        return checkpoint.load(Path(stored.path))
    with tempfile.TemporaryDirectory(prefix="ncf-model-") as folder:
        fs.copy_files(
            stored.path,
            folder,
            source_filesystem=stored.filesystem,
            destination_filesystem=fs.LocalFileSystem(),
        )
        return checkpoint.load(Path(folder))


def rated_movies(
    prepared: PreparedDataset, splits: Iterable[str], at_least: float | None = None
) -> SeenMovies:
    """What users have rated in these splits, or what they gave so many stars."""
    columns = ["user_index", "movie_index", *(["rating"] if at_least is not None else [])]
    tables = [prepared.table(split, columns) for split in splits if prepared.manifest.counts[split]]
    rows = pa.concat_tables(tables)
    if at_least is not None:
        rows = rows.filter(pc.greater_equal(rows["rating"], at_least))
    return SeenMovies.of(
        rows["user_index"].to_numpy(),
        rows["movie_index"].to_numpy(),
        prepared.preprocessor.num_users,
    )


def copy_checkpoint(source: Checkpoint, relative: str, destination: Storage) -> None:
    """Copy a folder of a checkpoint to storage, replacing what is there."""
    with source.as_directory() as folder:
        copy_folder(Path(folder) / relative, destination)


def copy_folder(source: Path, destination: Storage) -> None:
    """Copy a local folder to storage, replacing what is there."""
    # Object stores cannot rename folders. There the record of the stage, written last, or a
    # checkpoint's list of checksums tells a whole copy from a part of one.
    target = (
        destination.parent / f".{destination.name}.part" if destination.is_local else destination
    )
    target.delete()
    target.make_folder()
    fs.copy_files(
        str(source),
        target.path,
        source_filesystem=fs.LocalFileSystem(),
        destination_filesystem=target.filesystem,
    )
    if target != destination:
        destination.delete()
        target.move_to(destination)
