"""Recommend unseen movies to every user, one user or a new user; find movies like one movie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from foundation.cli import PositiveInt, main
from foundation.console import say
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
        type=int,
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
    user: int | None,
    new_user: Path | None,
    movie: str | None,
    reasons: int | None,
) -> None:
    """Run the stages up to this one, and print or write recommendations.

    Raises:
        ConfigError: if ``--reasons`` is given without a user.
        DatasetError: if the file of ``--new-user`` cannot be used. What can be checked without a
            model is checked first.
    """
    if reasons and (user, new_user) == (None, None):
        raise ConfigError("--reasons needs --user or --new-user: whose recommendations to explain")
    from ray_jobs.queries.recommendation import Query, show_one
    from ray_jobs.results.user_csv import check_ratings
    from ray_jobs.stages.graph import stages_of

    if new_user is not None:
        check_ratings(new_user)
    with stages_of(config, redo=redo) as stages:
        if (user, new_user, movie) == (None, None, None):
            say(f"recommendations of all users: {stages.recommendations}")
        else:
            prepared = stages.final_models[-1].prepared
            show_one(stages.workspace, prepared, Query(user, new_user, movie, reasons))


if __name__ == "__main__":
    raise SystemExit(main(command))
