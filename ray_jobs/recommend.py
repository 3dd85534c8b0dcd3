"""Recommend unseen movies to every user, one user or a new user; find movies like one movie.

For one user, a new user or a movie, the final model of the run is used as it is: nothing is
prepared, downloaded or trained, and Ray is not started. ``--train`` brings the run up to date
before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from foundation.cli import PositiveInt, main
from foundation.console import log_to_console, say_result
from foundation.errors import ConfigError
from ray_jobs.cli import job
from ray_jobs.redo import Redo

if TYPE_CHECKING:
    from ray_jobs.config import JobConfig

EXAMPLES: Final = (
    "--config configs/models/gaussian-process.toml --all",
    "--config configs/models/gaussian-process.toml --user 42 --reasons",
    '--config configs/models/gaussian-process.toml --movie "Toy Story (1995)"',
)
USAGE: Final = "[options] [--all | --user ID | --new-user FILE | --movie TITLE] [--reasons [N]]"


def _subject(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse a second one of the options that say what to recommend for."""
    if value in (None, False):
        return value
    first = ctx.meta.setdefault(f"{__name__}.subject", param.opts[0])
    if first != param.opts[0]:
        raise click.UsageError(f"{param.opts[0]} is not allowed with {first}", ctx)
    return value


def _title(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("the title is empty", ctx, param)
    return _subject(ctx, param, value)


OPTIONS: Final = (
    click.Option(
        ["--all", "all_users"],
        is_flag=True,
        callback=_subject,
        help="write the recommendations of every user to Parquet files and print their folder; the "
        "default",
    ),
    click.Option(
        ["--user"],
        metavar="ID",
        callback=_subject,
        help="print the recommendations of one user",
    ),
    click.Option(
        ["--new-user"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        callback=_subject,
        help="print recommendations for a user without training ratings, from a CSV of their "
        "ratings: movieId or title, rating, and optionally timestamp",
    ),
    click.Option(
        ["--movie"],
        metavar="TITLE",
        callback=_title,
        help="print the movies that are most similar to one",
    ),
    click.Option(
        ["--train"],
        is_flag=True,
        help="with --user, --new-user or --movie: first run the stages up to the final model that "
        "are not up to date; without it, the model is used as it is",
    ),
    click.Option(
        ["--json", "as_json"],
        is_flag=True,
        help="with --user, --new-user or --movie: print JSON to stdout, with --reasons all terms "
        "of every explanation",
    ),
    click.Option(
        ["--reasons"],
        type=PositiveInt(),
        is_flag=False,
        flag_value="3",
        metavar="[N]",
        help="with --user or --new-user: explain each prediction, naming the N ratings (3) that "
        "raised it most and the N that lowered it most",
    ),
)


@job("recommend", __doc__, OPTIONS, EXAMPLES, usage=USAGE)
def command(
    config: JobConfig,
    *,
    redo: Redo,
    all_users: bool,
    user: str | None,
    new_user: Path | None,
    movie: str | None,
    train: bool,
    as_json: bool,
    reasons: int | None,
) -> None:
    """Write the recommendations of all users as a stage, or print those of one.

    Raises:
        ConfigError: if ``--reasons`` is given without a user, or an option of stages without
            stages.
        DatasetError: if the file of ``--new-user`` cannot be used. What can be checked without a
            model is checked first.
    """
    if reasons and (user, new_user) == (None, None):
        raise ConfigError("--reasons needs --user or --new-user: whose recommendations to explain")
    is_query = (user, new_user, movie) != (None, None, None)
    _check_options(redo, is_query=is_query, train=train, as_json=as_json)
    if not is_query:
        from ray_jobs.stages.graph import stages_of

        with stages_of(config, redo=redo) as stages:
            say_result(f"recommendations of all users: {stages.recommendations}")
        return
    log_to_console(to_stderr=True)
    from ray_jobs.queries.recommendation import Query, show_one
    from ray_jobs.results.run import Workspace
    from ray_jobs.results.user_csv import check_ratings

    if new_user is not None:
        check_ratings(new_user)
    if train:
        from ray_jobs.stages.graph import stages_of

        with stages_of(config, redo=redo) as stages:
            _ = stages.final_models
    show_one(Workspace(config), Query(user, new_user, movie, reasons, as_json))


def _check_options(redo: Redo, *, is_query: bool, train: bool, as_json: bool) -> None:
    if train and not is_query:
        raise ConfigError("--train is for --user, --new-user or --movie; --all trains anyway")
    if as_json and not is_query:
        raise ConfigError("--json is for --user, --new-user or --movie; --all writes Parquet files")
    if is_query and not train and redo != Redo():
        raise ConfigError(
            "--force, --retry-failed and --replace are about stages, which --user, --new-user and "
            "--movie do not run: add --train"
        )


if __name__ == "__main__":
    raise SystemExit(main(command))
