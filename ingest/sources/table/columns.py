"""Which column of a table has which meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from foundation.errors import shortened
from ingest.config import ColumnsConfig
from ingest.errors import DatasetError
from ingest.sources.table.files import TableFile

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "user": ("user", "userid", "uid", "customer", "customerid", "member", "memberid", "reviewerid"),
    "item": (
        "item", "itemid", "movie", "movieid", "iid", "product", "productid", "sku", "film",
        "filmid", "asin", "isbn",
    ),
    "rating": ("rating", "ratings", "stars", "score", "overall"),
    "time": ("timestamp", "time", "date", "datetime", "unixreviewtime", "ratedat", "createdat"),
    "title": ("title", "name", "movietitle"),
    "genres": ("genres", "genre", "categories", "category"),
    "year": ("year", "releaseyear"),
    "imdb": ("imdbid", "imdb"),
    "tmdb": ("tmdbid", "tmdb"),
}  # fmt: skip
"""Names that are recognised, without case and marks; the first that a table has is taken."""
OF_RATINGS: Final = ("user", "item", "rating", "time")
OF_MOVIES: Final = ("item", "title", "genres", "year", "imdb", "tmdb")


def columns_of(
    file: TableFile, config: ColumnsConfig, meanings: tuple[str, ...], required: tuple[str, ...]
) -> dict[str, str]:
    """Columns by their meanings, those that the file has.

    Columns that ``config`` names must be there. Those of a table of ratings without a header line
    are in the order of ``OF_RATINGS``.

    Raises:
        DatasetError: if a named or a required column is not there, or one is named for two.
    """
    if not file.has_header and meanings == OF_RATINGS:
        return _in_order(file)
    named = {meaning: getattr(config, meaning) for meaning in meanings}
    found = {meaning: name for meaning, name in named.items() if name}
    for meaning, name in found.items():
        if name not in file.header:
            raise DatasetError(
                f"{file.path}, line 1: data.columns.{meaning} is {name!r}; found the columns "
                f"{shortened(', '.join(file.header))} ({file.layout}). Name one of them."
            )
    for meaning in meanings:
        if meaning not in found:
            name = _recognised(meaning, file.header, found)
            if name is not None:
                found[meaning] = name
    missing = [meaning for meaning in required if meaning not in found]
    if missing:
        wanted = ",".join(f"{meaning}=COLUMN" for meaning in missing)
        raise DatasetError(
            f"{file.path}, line 1: no column is recognised as {' or '.join(missing)}; found "
            f"{shortened(', '.join(file.header))} ({file.layout}). Name it: --columns {wanted}"
        )
    repeated = [name for name in found.values() if file.header.count(name) > 1]
    if repeated:
        raise DatasetError(
            f"{file.path}, line 1: the column {repeated[0]} is there "
            f"{file.header.count(repeated[0])} times; expected it once. Rename the others."
        )
    return found


def can_be_ratings(file: TableFile) -> bool:
    """Whether columns of users and items are recognised."""
    if not file.has_header:
        return len(file.header) in (3, 4)
    return all(_recognised(meaning, file.header, {}) for meaning in ("user", "item"))


def _in_order(file: TableFile) -> dict[str, str]:
    if len(file.header) not in (3, 4):
        raise DatasetError(
            f"{file.path}, line 1: {len(file.header)} columns without names ({file.layout}); "
            "expected a header line, or 3 or 4 columns: user, item, rating and time. Add a line "
            "with names."
        )
    return dict(zip(OF_RATINGS, file.header, strict=False))


def _recognised(meaning: str, header: tuple[str, ...], found: Mapping[str, str]) -> str | None:
    by_name = {re.sub(r"[^a-z]", "", name.lower()): name for name in reversed(header)}
    for known in NAMES[meaning]:
        if known in by_name and by_name[known] not in found.values():
            return by_name[known]
    return None
