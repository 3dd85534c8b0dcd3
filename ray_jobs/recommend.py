"""The best unseen movies of every user, of one user, or of a new user; movies like one movie."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray
from rich.table import Table
from rich.text import Text

from foundation.cli import positive
from foundation.console import show
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
from ray_jobs.config import JobConfig, RecommendConfig
from ray_jobs.results.final_model import load_model, rated_movies
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage
from ray_jobs.results.user_csv import check_ratings, read_ratings
from ray_jobs.stages import Stages
from ray_jobs.train import FinalModel, train

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class RecommendInputs:
    """Everything that the recommendations depend on."""

    model: FinalModel
    recommend: RecommendConfig


def recommend(workspace: Workspace, model: FinalModel) -> Storage:
    """Top-N unseen movies of every training user, by Ray Data batch inference; returns the file."""
    file, config = workspace.recommendations, workspace.config
    work = partial(_recommend, file=file, connect=partial(ensure_ray, config))
    workspace.update(Stage("recommend", RecommendInputs(model, config.recommend), (file,), work))
    return file


def _recommend(inputs: RecommendInputs, file: Storage, connect: Callable[[], None]) -> None:
    """The work of the stage; ``connect`` joins or starts Ray."""
    connect()
    prepared = inputs.model.prepared
    users, movies = prepared.preprocessor.num_users, prepared.preprocessor.num_movies
    logger.info(f"   {users:,} users, {movies:,} movies to choose from")
    tables = ray.data.range(users, override_num_blocks=_num_blocks(prepared)).map_batches(
        _recommend_block,
        fn_kwargs={
            "stored": inputs.model.checkpoint,
            "seen_ref": ray.put(_seen(prepared)),
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


def _seen(prepared: PreparedDataset) -> SeenMovies:
    """All that users have rated, in any split."""
    return rated_movies(prepared, SPLITS)


def show_one(workspace: Workspace, prepared: PreparedDataset, options: argparse.Namespace) -> None:
    """Print the answer about one user, a new user, or one movie.

    Raises:
        UnknownIdError: if the user has no training rating, or no movie has the title.
        UnsupportedError: if this kind of model has no answer.
        DatasetError: if the file with a new user's ratings cannot be used.
    """
    recommender = Recommender(load_model(workspace.paths.checkpoint))
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
        seen = recommender.checkpoint.preprocessor.movies.ids[_seen_by(prepared, user)]
        title = f"For user {user}, of movies not rated yet"
    best = recommender.recommend(user, top_n, seen.tolist())
    show(_movies(best, title, "predicted"))
    if options.reasons:
        for table in _reasons(recommender, recommender.explain(user, best.movies), options.reasons):
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


def _movies(best: Recommendations, title: str, what: str) -> Table:
    table = Table(title=title)
    for column in ("#", what, "movie", "id"):
        table.add_column(column, justify="left" if column == "movie" else "right")
    for rank, (movie, name, score) in enumerate(
        zip(best.movies, best.titles, best.scores, strict=True), start=1
    ):
        table.add_row(str(rank), f"{score:.2f}", Text(name), str(movie))
    return table


def _reasons(recommender: Recommender, reasons: list[Explanation], at_most: int) -> Iterator[Table]:
    """For each movie the parts of its prediction, with the ratings that moved it most."""
    if not recommender.checkpoint.model.has_attributions:
        logger.info(
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
    """Bring the stages up to this one up to date, and print or write recommendations.

    Raises:
        ConfigError: if the options exclude each other.
        DatasetError: if the file of ``--new-user`` cannot be used. What can be checked without a
            model is checked first.
    """
    if options.reasons and (options.user, options.new_user) == (None, None):
        raise ConfigError("--reasons needs --user or --new-user: whose recommendations to explain")
    if options.new_user is not None:
        check_ratings(Path(options.new_user))
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        stages = Stages(workspace)
        model = train(workspace, stages.raw, stages.prepared, stages.best_trial)
        if (options.user, options.new_user, options.movie) == (None, None, None):
            logger.info(f"recommendations of all users: {recommend(workspace, model)}")
        else:
            show_one(workspace, model.prepared, options)


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
