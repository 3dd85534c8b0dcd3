"""The best unseen movies of every user, as a stage of the pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
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
from ncf.inference import checkpoint
from ncf.inference.top_k import top_movies
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import RecommendConfig
from ray_jobs.results.final_model import load_model, rated_movies
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage
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
    ]
)


@dataclass(frozen=True)
class RecommendInputs:
    """Everything that the recommendations depend on."""

    model: FinalModel
    recommend: RecommendConfig


def recommend(workspace: Workspace, model: FinalModel, workers: Workers) -> Storage:
    """Top-N unseen movies of every training user, by Ray Data batch inference; returns the file.

    ``workers`` are ended, because they hold CPUs.
    """
    file, config = workspace.recommendations, workspace.config
    work = partial(_recommend, file=file, workers=workers, connect=partial(ensure_ray, config))
    workspace.update(Stage("recommend", RecommendInputs(model, config.recommend), (file,), work))
    return file


def _recommend(
    inputs: RecommendInputs, file: Storage, workers: Workers, connect: Callable[[], None]
) -> None:
    """The work of the stage; ``connect`` joins or starts Ray."""
    workers.close()
    connect()
    prepared = inputs.model.prepared
    users, movies = prepared.preprocessor.num_users, prepared.preprocessor.num_movies
    logger.info(f"   {users:,} users, {movies:,} movies to choose from")
    tables = ray.data.range(users, override_num_blocks=_num_blocks(prepared)).map_batches(
        _recommend_block,
        fn_kwargs={
            "stored": inputs.model.checkpoint,
            "seen_ref": ray.put(rated_movies(prepared, SPLITS)),
            "top_n": inputs.recommend.top_n,
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
) -> pa.Table:
    """User positions in, rows of recommendations out; the model is loaded once per block."""
    return recommendations(load_model(stored), batch["id"] + 1, ray.get(seen_ref), top_n)


def recommendations(
    model: checkpoint.Checkpoint, users: np.ndarray, seen: SeenMovies, top_n: int
) -> pa.Table:
    """``SCHEMA`` rows for user indices ``users: [B]``."""
    ranking = top_movies(model, users, seen, top_n)
    is_movie = ranking.movies >= 0
    row, rank = np.nonzero(is_movie)
    movies = ranking.movies[is_movie]
    titles = np.array(model.preprocessor.movies.titles, dtype=object)
    return pa.table(
        {
            "user_id": model.preprocessor.user_ids[users[row] - 1],
            "rank": rank.astype(np.int32) + 1,
            "movie_id": model.preprocessor.movies.ids[movies],
            "title": pa.array(titles[movies], type=pa.string()),
            "predicted_rating": ranking.stars[is_movie],
        },
        schema=SCHEMA,
    )
