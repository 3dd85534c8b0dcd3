"""The best unseen movies of every user, or of one. ``python -m ray_jobs.recommend --help``."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray
from pyarrow import fs
from rich.table import Table

from ingest.storage import Storage
from ncf import checkpoint
from ncf.errors import UnknownIdError
from ncf.fitted import UNKNOWN
from ncf.prepared import Prepared
from ncf.ranking import SeenMovies, top_movies
from ncf.splits import SPLITS
from ray_jobs import preflight
from ray_jobs.cluster import ensure_ray
from ray_jobs.config import JobConfig
from ray_jobs.console import say, show
from ray_jobs.preprocess import ingest, preprocess
from ray_jobs.runtime import main
from ray_jobs.train import Trained, train
from ray_jobs.tune import search
from ray_jobs.workspace import STAGE_VERSION, Workspace, fingerprint

FILE: Final = "recommendations.parquet"

SCHEMA: Final = pa.schema(
    [
        pa.field("user_id", pa.int64()),
        pa.field("rank", pa.int32()),  # from 1
        pa.field("movie_id", pa.int64()),
        pa.field("title", pa.string()),
        pa.field("predicted_rating", pa.float32()),  # stars, unless the target was decayed
    ]
)


def recommend(workspace: Workspace, trained: Trained) -> Storage:
    """Top-N unseen movies of every training user, by Ray Data batch inference; returns the file."""
    config = workspace.config
    file = workspace.recommendations / FILE
    key = fingerprint(
        STAGE_VERSION, trained.metrics["config_hash"], config.recommend.model_dump(mode="json")
    )

    def work() -> None:
        ensure_ray(config)
        prepared = trained.prepared
        model = workspace.run / "checkpoint"
        tables = ray.data.range(
            prepared.fitted.num_users, override_num_blocks=_num_blocks(prepared)
        ).map_batches(
            _recommend_block,
            fn_kwargs={
                "filesystem": model.filesystem,
                "path": model.path,
                "seen_ref": ray.put(_seen(prepared)),
                "top_n": config.recommend.top_n,
            },
            batch_size=None,
            batch_format="numpy",
        )
        result = pa.concat_tables(ray.get(tables.to_arrow_refs())).cast(SCHEMA)
        file.write_table(result.sort_by([("user_id", "ascending"), ("rank", "ascending")]))
        say(f"   {len(result):,} recommendations for {prepared.fitted.num_users:,} users: {file}")

    workspace.stage("recommend", key, [file], work)
    return file


def _num_blocks(prepared: Prepared) -> int:
    """A block, so a task, for each 2,000 users, as far as there are CPUs: each loads the model."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return max(1, min(cpus, prepared.fitted.num_users // 2000))


def _recommend_block(
    batch: Mapping[str, np.ndarray],
    filesystem: fs.FileSystem,
    path: str,
    seen_ref: Any,
    top_n: int,
) -> pa.Table:
    """User positions in, rows of recommendations out; called once a block, so it loads once."""
    return recommendations(load_model(filesystem, path), batch["id"] + 1, ray.get(seen_ref), top_n)


def recommendations(
    model: checkpoint.Checkpoint, users: np.ndarray, seen: SeenMovies, top_n: int
) -> pa.Table:
    """``SCHEMA`` rows for user indices ``users: [B]``."""
    ranking = top_movies(model, users, seen, top_n)
    found = ranking.movies >= 0
    row, rank = np.nonzero(found)
    movies = ranking.movies[found]
    titles = np.array(model.fitted.movies.titles, dtype=object)
    return pa.table(
        {
            "user_id": model.fitted.user_ids[users[row] - 1],
            "rank": rank.astype(np.int32) + 1,
            "movie_id": model.fitted.movies.ids[movies],
            "title": pa.array(titles[movies], type=pa.string()),
            "predicted_rating": ranking.stars[found],
        },
        schema=SCHEMA,
    )


def load_model(filesystem: fs.FileSystem, path: str) -> checkpoint.Checkpoint:
    """A checkpoint from any storage."""
    if isinstance(filesystem, fs.LocalFileSystem):
        return checkpoint.load(Path(path))
    with tempfile.TemporaryDirectory(prefix="ncf-model-") as folder:
        fs.copy_files(
            path,
            folder,
            source_filesystem=filesystem,
            destination_filesystem=fs.LocalFileSystem(),
        )
        return checkpoint.load(Path(folder))


def _seen(prepared: Prepared) -> SeenMovies:
    """All that users have rated, in any split."""
    tables = [
        prepared.table(split, ["user_index", "movie_index"])
        for split in SPLITS
        if prepared.manifest.counts[split]
    ]
    rows = pa.concat_tables(tables)
    return SeenMovies.of(
        rows["user_index"].to_numpy(), rows["movie_index"].to_numpy(), prepared.fitted.num_users
    )


def show_user(workspace: Workspace, trained: Trained, user_id: int) -> None:
    """Print one user's recommendations.

    Raises:
        UnknownIdError: if the user has no training rating.
    """
    stored = workspace.run / "checkpoint"
    model = load_model(stored.filesystem, stored.path)
    users = model.fitted.user_index(np.array([user_id]))
    if users[0] == UNKNOWN:
        known = model.fitted.user_ids
        raise UnknownIdError(
            f"user {user_id} has no training rating. The model knows {len(known):,} users, with "
            f"ids from {known[0]} to {known[-1]}."
        )
    top_n = workspace.config.recommend.top_n
    rows = recommendations(model, users, _seen(trained.prepared), top_n)
    table = Table(title=f"For user {user_id}, of movies not rated yet")
    for column in ("#", "predicted", "movie", "id"):
        table.add_column(column, justify="left" if column == "movie" else "right")
    for row in rows.to_pylist():
        table.add_row(
            str(row["rank"]), f"{row['predicted_rating']:.2f}", row["title"], str(row["movie_id"])
        )
    show(table)


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """The stages up to this one."""
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        raw = ingest(workspace)
        prepared = preprocess(workspace, raw)
        trained = train(workspace, raw, prepared, search(workspace, prepared))
        if options.user is None:
            recommend(workspace, trained)
        else:
            show_user(workspace, trained, options.user)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this command alone."""
    parser.add_argument(
        "--user", type=int, metavar="ID", help="print one user's recommendations instead"
    )


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run, add_options=add_options))
