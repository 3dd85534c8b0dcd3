"""The best unseen movies of every user, of one, or of somebody new; movies like one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray
from rich.table import Table
from rich.text import Text

from foundation.cli import positive
from foundation.console import say, show
from foundation.errors import ConfigError
from foundation.storage import Storage
from ncf.data.dataset import PreparedDataset
from ncf.data.preprocessor import UNKNOWN
from ncf.data.splits import SPLITS
from ncf.errors import UnknownIdError
from ncf.evaluation.ranking import SeenMovies
from ncf.inference import checkpoint
from ncf.inference.recommender import Explanation, Recommendations, Recommender
from ncf.inference.top_k import top_movies
from ray_jobs.cli import main
from ray_jobs.cluster import preflight
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import JobConfig
from ray_jobs.preprocess import ingest, preprocess
from ray_jobs.results.final_model import load_model, rated_movies
from ray_jobs.results.run import STAGE_VERSION, Workspace, fingerprint
from ray_jobs.results.user_csv import check_ratings, read_ratings
from ray_jobs.train import Trained, train
from ray_jobs.tune import search

FILE: Final = "recommendations.parquet"

EXAMPLES: Final = (
    "--config configs/models/gaussian-process.toml --all",
    "--config configs/models/gaussian-process.toml --user 42 --reasons",
    '--config configs/models/gaussian-process.toml --movie "Toy Story (1995)"',
)

_BASE: Final = {
    "network": "the network, with the mean rating",
    "biases": "biases",
    "gmf": "products of the user's and the movie's vectors",
}

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
        known = prepared.preprocessor
        say(f"   {known.num_users:,} users, {known.num_movies:,} movies to choose from")
        model = workspace.run / "checkpoint"
        tables = ray.data.range(
            prepared.preprocessor.num_users, override_num_blocks=_num_blocks(prepared)
        ).map_batches(
            _recommend_block,
            fn_kwargs={
                "stored": model,
                "seen_ref": ray.put(_seen(prepared)),
                "top_n": config.recommend.top_n,
            },
            batch_size=None,
            batch_format="numpy",
        )
        result = pa.concat_tables(ray.get(tables.to_arrow_refs())).cast(SCHEMA)
        file.write_table(result.sort_by([("user_id", "ascending"), ("rank", "ascending")]))
        say(f"   {len(result):,} recommendations")

    workspace.stage("recommend", key, [file], work)
    return file


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
    """User positions in, rows of recommendations out; called once a block, so it loads once."""
    return recommendations(load_model(stored), batch["id"] + 1, ray.get(seen_ref), top_n)


def recommendations(
    model: checkpoint.Checkpoint, users: np.ndarray, seen: SeenMovies, top_n: int
) -> pa.Table:
    """``SCHEMA`` rows for user indices ``users: [B]``."""
    ranking = top_movies(model, users, seen, top_n)
    found = ranking.movies >= 0
    row, rank = np.nonzero(found)
    movies = ranking.movies[found]
    titles = np.array(model.preprocessor.movies.titles, dtype=object)
    return pa.table(
        {
            "user_id": model.preprocessor.user_ids[users[row] - 1],
            "rank": rank.astype(np.int32) + 1,
            "movie_id": model.preprocessor.movies.ids[movies],
            "title": pa.array(titles[movies], type=pa.string()),
            "predicted_rating": ranking.stars[found],
        },
        schema=SCHEMA,
    )


def _seen(prepared: PreparedDataset) -> SeenMovies:
    """All that users have rated, in any split."""
    return rated_movies(prepared, SPLITS)


def show_one(workspace: Workspace, trained: Trained, options: argparse.Namespace) -> None:
    """Print what was asked about one user, somebody new, or one movie.

    Raises:
        UnknownIdError: if the user has no training rating, or no movie has the title.
        UnsupportedError: if the model is none that can tell.
        DatasetError: if the file with a newcomer's ratings cannot be used.
    """
    recommender = Recommender(load_model(workspace.run / "checkpoint"))
    top_n = workspace.config.recommend.top_n
    if options.movie is not None:
        movie = recommender.find(options.movie)
        show(
            _movies(
                recommender.similar(movie, top_n), f"Like {recommender.title(movie)}", "likeness"
            )
        )
        return
    user, seen = options.user, np.zeros(0, np.int64)
    if options.new_user is not None:
        own = read_ratings(Path(options.new_user), recommender)
        recommender = recommender.fold_in(own.movies, own.ratings, own.times)
        user, title = 0, f"For the ratings in {options.new_user}"
        seen = own.movies  # a model may look at the newest ones alone
    else:
        seen = recommender.checkpoint.preprocessor.movies.ids[_seen_by(trained.prepared, user)]
        title = f"For user {user}, of movies not rated yet"
    found = recommender.recommend(user, top_n, seen.tolist())
    show(_movies(found, title, "predicted"))
    if options.reasons:
        for table in _reasons(
            recommender, recommender.explain(user, found.movies), options.reasons
        ):
            show(table)


def _seen_by(prepared: PreparedDataset, user_id: int) -> np.ndarray:
    """Movie indices that a training user has rated in any split."""
    known = prepared.preprocessor.user_ids
    index = prepared.preprocessor.user_index(np.array([user_id]))[0]
    if index == UNKNOWN:
        raise UnknownIdError(
            f"user {user_id} has no training rating. The model knows {len(known):,} users, with "
            f"ids from {known[0]} to {known[-1]}."
        )
    return _seen(prepared).by(int(index))


def _movies(found: Recommendations, title: str, what: str) -> Table:
    table = Table(title=title)
    for column in ("#", what, "movie", "id"):
        table.add_column(column, justify="left" if column == "movie" else "right")
    for rank, (movie, name, score) in enumerate(
        zip(found.movies, found.titles, found.scores, strict=True), start=1
    ):
        table.add_row(str(rank), f"{score:.2f}", Text(name), str(movie))
    return table


def _reasons(recommender: Recommender, reasons: list[Explanation], at_most: int) -> Iterator[Table]:
    """For each movie the parts of its prediction, with the ratings that moved it most."""
    if recommender.checkpoint.model.gaussian_process is None:
        say(
            "note: what the user's ratings add can be told rating by rating only for a model with "
            "the Gaussian process (model.history.encoders); for this one, the parts of the network "
            "that add up to the prediction"
        )
    for why in reasons:
        table = Table(title=f"{recommender.title(why.movie)}: {why.prediction:.2f}")
        table.add_column("adds", justify="right")
        table.add_column("because of")
        table.add_column("rated", justify="right")
        for name, part in why.base.items():
            table.add_row(f"{part:+.3f}", _BASE[name], "")
        order = np.argsort(-why.added, kind="stable")
        up = [i for i in order[:at_most] if why.added[i] > 0]
        down = [i for i in order[::-1][:at_most] if why.added[i] < 0][::-1]
        for i in up:
            table.add_row(*_rating(recommender, why, i))
        if rest := len(order) - len(up) - len(down):
            others = why.added.sum() - why.added[[*up, *down]].sum()
            table.add_row(f"{others:+.3f}", f"{rest} other ratings", "")
        for i in down:
            table.add_row(*_rating(recommender, why, i))
        yield table


def _rating(recommender: Recommender, why: Explanation, i: int) -> tuple[str, Text, str]:
    title = Text(recommender.title(int(why.rated[i])))
    return f"{why.added[i]:+.3f}", title, f"{why.ratings[i]:.3g}"


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """The stages up to this one.

    Raises:
        ConfigError: if options are given that do not go together.
        DatasetError: if the file of ``--new-user`` cannot be used, as far as that can be told
            before there is a model; nothing is done then.
    """
    if options.reasons and (options.user, options.new_user) == (None, None):
        raise ConfigError("--reasons needs --user or --new-user: whose recommendations to explain")
    if options.new_user is not None:
        check_ratings(Path(options.new_user))
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        raw = ingest(workspace)
        prepared = preprocess(workspace, raw)
        trained = train(workspace, raw, prepared, search(workspace, prepared))
        if (options.user, options.new_user, options.movie) == (None, None, None):
            say(f"recommendations of all users: {recommend(workspace, trained)}")
        else:
            show_one(workspace, trained, options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this command alone."""
    parser.usage = (
        "%(prog)s [options]\n"
        "           [--all | --user ID | --new-user FILE | --movie TITLE] [--reasons [N]]"
    )
    about = parser.add_mutually_exclusive_group()
    about.add_argument(
        "--all",
        action="store_true",
        help="write those of every user to a file and say where; so without any of these, too",
    )
    about.add_argument("--user", type=int, metavar="ID", help="print one user's")
    about.add_argument(
        "--new-user",
        metavar="FILE",
        help="print those for somebody who was not in the training data, by a CSV of ratings: "
        "movieId or title, rating, and optionally timestamp",
    )
    about.add_argument(
        "--movie", type=_title, metavar="TITLE", help="print the movies most like one"
    )
    parser.add_argument(
        "--reasons",
        type=positive,
        nargs="?",
        const=3,
        metavar="N",
        help="with --user or --new-user: say what each prediction is made of, with the N ratings "
        "(3) that raised it most and the N that lowered it most",
    )


def _title(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the title is empty")
    return text


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", run, add_options=add_options, examples=EXAMPLES))
