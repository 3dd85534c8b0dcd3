"""The best unseen movies of every user, as a stage of the pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray

from foundation.storage import Storage
from ncf.data.dataset import PreparedDataset
from ncf.data.splits import SPLITS
from ncf.evaluation.ranking import SeenMovies
from ncf.inference.ordering import DEFAULT_ORDERING, Ordering
from ncf.inference.recommender import Recommender
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import RecommendConfig
from ray_jobs.results.final_model import load_recommender, ordering_of, rated_movies
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage
from ray_jobs.stages.choice_training import FinalChoiceModel
from ray_jobs.stages.training import FinalModel
from ray_jobs.training.workers import Workers

logger = logging.getLogger(__name__)

SCHEMA: Final = pa.schema(
    [
        pa.field("user_id", pa.int64()),
        pa.field("rank", pa.int32()),  # from 1
        pa.field("movie_id", pa.int64()),
        pa.field("title", pa.string()),
        pa.field("predicted_rating", pa.float32()),  # stars, unless the target was decayed
        pa.field("score", pa.float32()),  # what movies are ordered by
    ]
)


@dataclass(frozen=True)
class RecommendInputs:
    """Everything that the recommendations depend on."""

    models: tuple[FinalModel | FinalChoiceModel, ...]
    """The rating model, the choice model, or both, of the same data."""
    recommend: RecommendConfig


def recommend(
    workspace: Workspace, models: Sequence[FinalModel | FinalChoiceModel], workers: Workers
) -> Storage:
    """Top-N unseen movies of every training user, by Ray Data batch inference; returns the file.

    ``workers`` are ended, because they hold CPUs.
    """
    file, config = workspace.recommendations, workspace.config
    inputs = RecommendInputs(tuple(models), config.recommend)
    work = partial(
        _recommend,
        stored=workspace.paths.checkpoint,
        file=file,
        workers=workers,
        connect=partial(ensure_ray, config),
    )
    workspace.update(Stage("recommend", inputs, (file,), work))
    return file


def _recommend(
    inputs: RecommendInputs,
    stored: Storage,
    file: Storage,
    workers: Workers,
    connect: Callable[[], None],
) -> None:
    """The work of the stage; ``stored`` has the models, ``connect`` joins or starts Ray."""
    workers.close()
    connect()
    prepared = inputs.models[0].prepared
    users, movies = prepared.preprocessor.num_users, prepared.preprocessor.num_movies
    logger.info(f"   {users:,} users, {movies:,} movies to choose from")
    tables = ray.data.range(users, override_num_blocks=_num_blocks(prepared)).map_batches(
        _recommend_block,
        fn_kwargs={
            "stored": stored,
            "seen_ref": ray.put(rated_movies(prepared, SPLITS)),
            "top_n": inputs.recommend.top_n,
            "ordering": ordering_of(inputs.recommend),
        },
        batch_size=None,
        batch_format="numpy",
    )
    result = pa.concat_tables(ray.get(tables.to_arrow_refs())).cast(SCHEMA)
    file.write_table(result.sort_by([("user_id", "ascending"), ("rank", "ascending")]))
    logger.info(f"   {len(result):,} recommendations")


def _num_blocks(prepared: PreparedDataset) -> int:
    """A block, so a task, for each 2,000 users, as far as there are CPUs: each loads the model."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return max(1, min(cpus, prepared.preprocessor.num_users // 2000))


def _recommend_block(
    batch: Mapping[str, np.ndarray],
    stored: Storage,
    seen_ref: Any,
    top_n: int,
    ordering: Ordering,
) -> pa.Table:
    """User positions in, rows of recommendations out; the models are loaded once per block."""
    seen: SeenMovies = ray.get(seen_ref)
    return recommendations(load_recommender(stored), batch["id"] + 1, seen, top_n, ordering)


def recommendations(
    recommender: Recommender,
    users: np.ndarray,
    seen: SeenMovies,
    top_n: int,
    ordering: Ordering = DEFAULT_ORDERING,
) -> pa.Table:
    """``SCHEMA`` rows for user indices ``users: [B]``."""
    best, scores, stars = recommender.recommend_all(users, top_n, seen, ordering)
    is_movie = best >= 0
    row, rank = np.nonzero(is_movie)
    movies, preprocessor = best[is_movie], recommender.preprocessor
    titles = np.array(preprocessor.movies.titles, dtype=object)
    return pa.table(
        {
            "user_id": preprocessor.user_ids[users[row] - 1],
            "rank": rank.astype(np.int32) + 1,
            "movie_id": preprocessor.movies.ids[movies],
            "title": pa.array(titles[movies], type=pa.string()),
            # Without a rating model there are none.
            "predicted_rating": pa.array(stars[is_movie], pa.float32(), from_pandas=True),
            "score": scores[is_movie],
        },
        schema=SCHEMA,
    )
