"""The best unseen movies of every user, of one user, or of a new user; movies like one movie."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from foundation.cli import positive
from foundation.console import say
from foundation.errors import ConfigError
from ray_jobs.cli import main

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig

EXAMPLES: Final = (
    "--config configs/models/gaussian-process.toml --all",
    "--config configs/models/gaussian-process.toml --user 42 --reasons",
    '--config configs/models/gaussian-process.toml --movie "Toy Story (1995)"',
)


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Bring the stages up to this one up to date, and print or write recommendations.

    Raises:
        ConfigError: if the options exclude each other.
        DatasetError: if the file of ``--new-user`` cannot be used. What can be checked without a
            model is checked first.
    """
    if options.reasons and (options.user, options.new_user) == (None, None):
        raise ConfigError("--reasons needs --user or --new-user: whose recommendations to explain")
    from ray_jobs.cluster import preflight
    from ray_jobs.queries.recommendation import Query, show_one
    from ray_jobs.results.run import Workspace
    from ray_jobs.results.user_csv import check_ratings
    from ray_jobs.stages.graph import Stages
    from ray_jobs.stages.recommendation import recommend
    from ray_jobs.stages.training import train

    new_user = None if options.new_user is None else Path(options.new_user)
    if new_user is not None:
        check_ratings(new_user)
    workspace = Workspace(config, options.force)
    with preflight.job(workspace):
        stages = Stages(workspace)
        model = train(workspace, stages.raw, stages.prepared, stages.best_trial)
        if (options.user, new_user, options.movie) == (None, None, None):
            say(f"recommendations of all users: {recommend(workspace, model)}")
        else:
            query = Query(options.user, new_user, options.movie, options.reasons)
            show_one(workspace, model.prepared, query)


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
