"""What is said of a model: from its checkpoint, and from what the run noted beside it."""

from __future__ import annotations

from typing import Final

from foundation.storage import Storage
from ingest.manifest import MOVIELENS_CITATION, TMDB_ATTRIBUTION
from ncf.inference.checkpoint import Checkpoint
from ray_jobs.results.metrics import RunMetrics, SplitMetrics
from ray_jobs.results.paths import RunPaths
from ray_jobs.web.models import ModelInfo, TestErrors

_NOTICES: Final = (MOVIELENS_CITATION, TMDB_ATTRIBUTION)
_SYNTHETIC: Final = "The films and ratings are synthetic: made up by a program."
_UNKNOWN: Final = (
    "What this model was trained on is not noted beside it. If it was MovieLens, or TMDb, this "
    "holds:"
)


def describe(stored: Storage, checkpoint: Checkpoint) -> ModelInfo:
    """Of the model in ``stored``; data set and test errors are known for a run's kept model."""
    paths = RunPaths(stored.parent)
    is_final = stored.name == paths.checkpoint.name and paths.metrics.exists()
    metrics = RunMetrics.read(paths.metrics) if is_final else None
    preprocessor, model = checkpoint.preprocessor, checkpoint.model
    return ModelInfo(
        name=stored.parent.name if metrics else stored.name,
        dataset=metrics.dataset if metrics else None,
        num_movies=len(preprocessor.movies),
        num_users=preprocessor.num_users,
        rating_min=preprocessor.rating_min,
        rating_max=preprocessor.rating_max,
        takes_ratings=model.uses_history,
        gives_reasons=model.gaussian_process is not None and model.head is None,
        test=_errors(metrics.test) if metrics else None,
        notices=_notices(metrics) if metrics else (_UNKNOWN, *_NOTICES),
    )


def _errors(metrics: SplitMetrics) -> TestErrors:
    return TestErrors(
        rmse=metrics.rmse, mae=metrics.mae, r2=metrics.r2, num_ratings=metrics.num_ratings
    )


def _notices(metrics: RunMetrics) -> tuple[str, ...]:
    synthetic = (_SYNTHETIC,) if metrics.synthetic else ()
    return synthetic + tuple(n for n in metrics.raw.notices if n in _NOTICES)
