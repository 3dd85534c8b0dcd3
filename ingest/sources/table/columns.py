"""Which column of a table has which meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from foundation.errors import shortened
from ingest.config import ColumnsConfig
from ingest.errors import DatasetError
from ingest.sources.table.files import TableFile

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "user": (
        "userid", "uid", "customerid", "memberid", "reviewerid", "user", "customer", "member",
        "reviewer",
    ),
    "item": (
        "itemid", "movieid", "iid", "productid", "filmid", "sku", "asin", "isbn", "item", "movie",
        "product", "film",
    ),
    "rating": ("rating", "ratings", "stars", "score", "overall"),
    "time": ("timestamp", "time", "date", "datetime", "unixreviewtime", "ratedat", "createdat"),
    "title": ("title", "name", "movietitle", "originaltitle"),
    "genres": ("genres", "genre", "categories", "category"),
    "year": ("year", "releaseyear"),
    "imdb": ("imdbid", "imdb"),
    "tmdb": ("tmdbid", "tmdb"),
}  # fmt: skip
"""Names that are recognised, without case and marks; the first that a table has is taken."""
OF_RATINGS: Final = ("user", "item", "rating", "time")
OF_MOVIES: Final = ("item", "title", "genres", "year", "imdb", "tmdb")
_MOVIE_ID: Final = "id"
"""A column that names movies in a table of movies only."""
_POSITION: Final = re.compile(r"(column )?\d*")
"""How a column without a name is named, or nothing."""
_RATING_ENDINGS: Final = ("rating", "ratings", "stars", "score")


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read."""

    names: dict[str, str]
    """Column names by their meanings."""
    others: tuple[str, ...]
    """Columns that are not read."""

    @property
    def shown(self) -> str:
        """For notices."""
        named = ", ".join(f"{meaning} = {name}" for meaning, name in self.names.items())
        unused = f"; not used: {shortened(', '.join(self.others))}" if self.others else ""
        return f"columns: {named}{unused}"


def rating_columns(file: TableFile, config: ColumnsConfig) -> Columns:
    """The columns of a table of ratings.

    Those that ``config`` names must be there. Without a header line they are in the order of
    ``OF_RATINGS``, unless ``config`` names them by their positions, from 1.

    Raises:
        DatasetError: if a named or a required column is not there, several could be the ratings, or
            a name is there twice.
    """
    named = _named(config, OF_RATINGS)
    if not file.has_header:
        return _chosen(file, _by_position(file, named) if named else _in_order(file))
    for meaning, name in named.items():
        if name not in file.header:
            raise DatasetError(
                f"{file.path}, line 1: data.columns.{meaning} is {name!r}; found the columns "
                f"{shortened(', '.join(file.header))} ({file.layout}). Name one of them."
            )
    found = _recognised(file.header, OF_RATINGS, named)
    if "rating" not in found:
        found |= _column_of_ratings(file, found)
    _require(file, found, ("user", "item"), "a row for each rating")
    return _chosen(file, found)


def movie_columns(file: TableFile, config: ColumnsConfig, item: str) -> Columns:
    """The columns of a table of movies; ``item`` is the name of their ids among the ratings.

    Columns that ``config`` names may be in another table of movies.

    Raises:
        DatasetError: if no column has the ids of movies, or a name is there twice.
    """
    named = {
        meaning: name for meaning, name in _named(config, OF_MOVIES).items() if name in file.header
    }
    if "item" not in named and item in file.header:
        named["item"] = item
    found = _recognised(file.header, OF_MOVIES, named)
    if "item" not in found:
        ids = [name for name in file.header if _plain(name) == _MOVIE_ID]
        found |= {"item": ids[0]} if ids else {}
    _require(file, found, ("item",), "a header line, and a row for each movie")
    return _chosen(file, found)


def can_be_ratings(file: TableFile) -> bool:
    """Whether columns of users and items are recognised."""
    if not file.has_header:
        return len(file.header) in (3, 4)
    return {"user", "item"} <= set(_recognised(file.header, ("user", "item"), {}))


def header_test(config: ColumnsConfig) -> Callable[[Sequence[str]], bool]:
    """Whether texts have a name that is recognised, or that ``config`` names."""
    given = {name for name in config.model_dump().values() if not _POSITION.fullmatch(name)}
    known = {_MOVIE_ID, *(name for names in NAMES.values() for name in names)}

    def is_header(texts: Sequence[str]) -> bool:
        return any(text.strip() in given or _plain(text) in known for text in texts)

    return is_header


def _named(config: ColumnsConfig, meanings: Iterable[str]) -> dict[str, str]:
    named = {meaning: getattr(config, meaning) for meaning in meanings}
    return {meaning: name for meaning, name in named.items() if name}


def _by_position(file: TableFile, named: dict[str, str]) -> dict[str, str]:
    """Columns that are named ``2`` or ``column 2``, of a file without a header line."""
    found = {}
    for meaning, name in named.items():
        column = name if name.startswith("column ") else f"column {name}"
        if column not in file.header:
            raise DatasetError(
                f"{file.path}, line 1: data.columns.{meaning} is {name!r}; found "
                f"{len(file.header)} columns without names ({file.layout}). Name columns by their "
                "positions, such as --columns user=1,item=2, or add a line with names."
            )
        found[meaning] = column
    _require(file, found, ("user", "item"), "a row for each rating")
    return found


def _in_order(file: TableFile) -> dict[str, str]:
    if len(file.header) not in (3, 4):
        raise DatasetError(
            f"{file.path}, line 1: {len(file.header)} columns without names ({file.layout}); "
            "expected a header line, or 3 or 4 columns: user, item, rating and time. Add a line "
            "with names, or name columns by their positions: --columns user=1,item=2"
        )
    return dict(zip(OF_RATINGS, file.header, strict=False))


def _recognised(
    header: Sequence[str], meanings: Iterable[str], named: dict[str, str]
) -> dict[str, str]:
    """``named``, and for the other meanings the columns with usual names."""
    found = dict(named)
    by_name = {_plain(name): name for name in reversed(header)}
    for meaning in meanings:
        free = [name for name in NAMES[meaning] if by_name.get(name) not in (*found.values(), None)]
        if meaning not in found and free:
            found[meaning] = by_name[free[0]]
    return found


def _column_of_ratings(file: TableFile, found: dict[str, str]) -> dict[str, str]:
    """The column whose name ends as those of ratings do, such as Book-Rating.

    Raises:
        DatasetError: if there are several.
    """
    free = [name for name in file.header if name not in found.values()]
    ratings = [name for name in free if _plain(name).endswith(_RATING_ENDINGS)]
    if len(ratings) > 1:
        raise DatasetError(
            f"{file.path}, line 1: the columns {shortened(', '.join(ratings))} could all be the "
            f"ratings. Name one: --columns rating={ratings[0]}"
        )
    return {"rating": ratings[0]} if ratings else {}


def _require(
    file: TableFile, found: dict[str, str], required: Iterable[str], expected: str
) -> None:
    missing = [meaning for meaning in required if meaning not in found]
    if missing:
        wanted = ",".join(f"{meaning}=COLUMN" for meaning in missing)
        raise DatasetError(
            f"{file.path}, line 1: no column is recognised as {' or '.join(missing)}; found "
            f"{shortened(', '.join(file.header))} ({file.layout}). Expected {expected}. "
            f"Name the columns: --columns {wanted}"
        )


def _chosen(file: TableFile, found: dict[str, str]) -> Columns:
    """
    Raises:
        DatasetError: if the name of a column that is read is there twice.
    """
    for name in found.values():
        if (count := file.header.count(name)) > 1:
            raise DatasetError(
                f"{file.path}, line 1: the column {name} is there {count} times; expected it once. "
                "Rename the others."
            )
    ordered = {meaning: found[meaning] for meaning in NAMES if meaning in found}
    others = tuple(name for name in file.header if name and name not in found.values())
    return Columns(ordered, others)


def _plain(name: str) -> str:
    """Lower case, letters and digits only."""
    return "".join(c for c in name.casefold() if c.isalnum())
