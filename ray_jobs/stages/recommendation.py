"""The best unseen movies of every user, as a stage of the pipeline."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import ray

from foundation.checksums import CHECKSUMS
from foundation.storage import Storage
from ncf.data.splits import SPLITS
from ncf.evaluation.ranking import SeenMovies
from ncf.inference.ordering import DEFAULT_ORDERING, Ordering
from ncf.inference.recommender import Recommender
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import RecommendConfig
from ray_jobs.results.final_model import load_recommender, ordering_of, rated_movies
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage, fingerprint, key_of, unfinished_work
from ray_jobs.stages.choice_training import FinalChoiceModel
from ray_jobs.stages.training import FinalModel
from ray_jobs.training.workers import Workers

logger = logging.getLogger(__name__)

_LEAST_USERS: Final = 2_000
"""Users of a file, if there are more."""
_MOST_PARTS: Final = 1_000
"""Files at most."""

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
    output: Literal["folder"] = "folder"
    """It was a file in earlier versions."""


def recommend(
    workspace: Workspace, models: Sequence[FinalModel | FinalChoiceModel], workers: Workers
) -> Storage:
    """Top-N unseen movies of every training user, by Ray Data batch inference; returns the folder
    of Parquet files.

    ``workers`` are ended, because they hold CPUs.
    """
    folder, config = workspace.recommendations, workspace.config
    inputs = RecommendInputs(tuple(models), config.recommend)
    work = partial(
        _recommend,
        paths=workspace.paths,
        folder=folder,
        workers=workers,
        connect=partial(ensure_ray, config),
        force=workspace.force,
    )
    workspace.update(Stage("recommend", inputs, (folder,), work))
    return folder


def _recommend(
    inputs: RecommendInputs,
    paths: RunPaths,
    folder: Storage,
    workers: Workers,
    connect: Callable[[], None],
    *,
    force: bool,
) -> None:
    """The work of the stage; ``paths`` have the models, ``connect`` joins or starts Ray."""
    workers.close()
    connect()
    prepared = inputs.models[0].prepared
    users, movies = prepared.preprocessor.num_users, prepared.preprocessor.num_movies
    logger.info(f"   {users:,} users, {movies:,} movies to choose from")
    unfinished = paths.ray("recommend")
    key = fingerprint(key_of(inputs), *_checksums(paths.checkpoint))
    parts = unfinished_work(unfinished, key, force=force).make_folder()
    missing = [part for part in _parts(users) if not (parts / part.file).exists()]
    if missing:
        _make(missing, inputs, paths.checkpoint, key, parts)
    _publish(parts, folder)
    unfinished.delete()
    logger.info(f"   the {inputs.recommend.top_n} best movies of each user")


def _checksums(models: Storage) -> list[str]:
    """Those of the models' files: training again may give other weights for the same settings."""
    files = models.list_files(CHECKSUMS, recursive=True)
    return [file.read_bytes().decode() for file in files]


@dataclass(frozen=True)
class Part:
    """Consecutive users, whose recommendations are in one file."""

    start: int
    """Index of the first one."""
    stop: int
    """Index after that of the last one."""

    @property
    def file(self) -> str:
        """Its name; files sorted by name have their users sorted by id."""
        return f"{self.start:012}.parquet"


def _parts(num_users: int) -> list[Part]:
    size = max(_LEAST_USERS, -(-num_users // _MOST_PARTS))
    # Index 0 stands for unknown users.
    return [
        Part(start, min(start + size, num_users + 1)) for start in range(1, num_users + 1, size)
    ]


def _make(
    missing: Sequence[Part], inputs: RecommendInputs, stored: Storage, key: str, parts: Storage
) -> None:
    """Write the files of ``missing`` in tasks of Ray Data, as many at a time as fit."""
    tables = ray.data.from_items(
        [asdict(part) for part in missing], override_num_blocks=len(missing)
    ).map_batches(
        _recommend_parts,
        fn_kwargs={
            "models": pickle.dumps(stored),
            "key": key,
            "seen_ref": ray.put(rated_movies(inputs.models[0].prepared, SPLITS)),
            "recommend": inputs.recommend,
            "parts": parts,
        },
        batch_size=None,
        batch_format="numpy",
        num_cpus=1,
    )
    for _ in tables.iter_rows():
        pass


def _recommend_parts(
    batch: Mapping[str, np.ndarray],
    models: bytes,
    key: str,
    seen_ref: Any,
    recommend: RecommendConfig,
    parts: Storage,
) -> dict[str, np.ndarray]:
    """Write the parts of a batch; return their numbers of rows."""
    recommender, seen = _loaded(models, key), ray.get(seen_ref)
    written = []
    for start, stop in zip(batch["start"].tolist(), batch["stop"].tolist(), strict=True):
        users = np.arange(start, stop)
        table = recommendations(recommender, users, seen, recommend.top_n, ordering_of(recommend))
        (parts / Part(start, stop).file).write_table(table)
        written.append(len(table))
    return {"rows": np.array(written)}


@lru_cache(maxsize=1)
def _loaded(models: bytes, key: str) -> Recommender:
    """The models, which a worker process loads once.

    An actor pool of Ray Data would do the same, but Ray 2.60 prints an error about every actor of
    such a pool (https://github.com/ray-project/ray/issues/53727).

    Args:
        models: the pickled ``Storage``, which has no hash.
        key: distinguishes these models from earlier ones in the same place.
    """
    return load_recommender(pickle.loads(models))


def _publish(parts: Storage, folder: Storage) -> None:
    """Put the files where they belong, once all are there."""
    if parts.is_local:
        folder.delete()
        folder.parent.make_folder()
        parts.move_to(folder)
    else:
        parts.copy_to(folder)


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
    titles = np.array(preprocessor.movies.display_titles, dtype=object)
    ids = preprocessor.user_ids[users[row] - 1]
    found = pa.table(
        {
            "user_id": ids,
            "rank": rank.astype(np.int32) + 1,
            "movie_id": preprocessor.movies.ids[movies],
            "title": pa.array(titles[movies], type=pa.string()),
            # Without a rating model there are none.
            "predicted_rating": pa.array(stars[is_movie], pa.float32(), from_pandas=True),
            "score": scores[is_movie],
        },
        schema=SCHEMA,
    )
    # Numbers stand for the texts that the data have as ids.
    if recommender.user_texts is not None:
        texts = list(recommender.user_texts.texts_of(ids))
        found = found.append_column("user", pa.array(texts, pa.string()))
    if recommender.movie_texts is not None:
        texts = list(recommender.movie_texts.texts_of(found["movie_id"].to_numpy()))
        found = found.append_column("movie", pa.array(texts, pa.string()))
    return found
