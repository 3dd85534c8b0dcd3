"""The final model of a run, and the ratings that its users gave."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from foundation.storage import Storage
from ncf.data.dataset import PreparedDataset
from ncf.evaluation.ranking import SeenMovies
from ncf.inference import checkpoint, recommender
from ncf.inference.ordering import Ordering
from ncf.inference.recommender import Recommender
from ray_jobs.config import RecommendConfig
from ray_jobs.errors import NoModelError
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.run import Workspace

T = TypeVar("T")

_MAX_NAMED: Final = 10


def final_model(workspace: Workspace) -> Storage:
    """Folder of the run's final models.

    Raises:
        NoModelError: if it has none.
    """
    stored = workspace.paths.checkpoint
    if not stored.exists():
        raise NoModelError(
            f"there is no trained model in {stored}. Train it with movie-ratings train and the "
            f"same options{_others(workspace)}."
        )
    return stored


def _others(workspace: Workspace) -> str:
    """The runs that have a model, for an error."""
    runs = (workspace.storage / "runs").list_folders()
    names = sorted(run.name for run in runs if RunPaths(run).checkpoint.exists())[:_MAX_NAMED]
    if not names:
        return ""
    return f", or use the model of another run with --set name=...: {', '.join(names)}"


def load_model(stored: Storage) -> checkpoint.Checkpoint:
    """A rating model from any storage."""
    return _read(stored, checkpoint.load)


def load_recommender(stored: Storage) -> Recommender:
    """The models of a run from any storage, of ratings, of choices, or both, by numbers as ids."""
    return replace(_read(stored, recommender.load), by_number=True)


def _read(stored: Storage, load: Callable[[Path], T]) -> T:
    if stored.is_local:
        return load(Path(stored.path))
    with tempfile.TemporaryDirectory(prefix="ncf-model-") as folder:
        stored.copy_to(Storage.at(folder) / "model")
        return load(Path(folder) / "model")


def ordering_of(recommend: RecommendConfig) -> Ordering:
    """How movies are ordered, as configured."""
    return Ordering(
        recommend.order, recommend.min_ratings, recommend.popularity, recommend.deviations
    )


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
