"""The MovieLens releases: their file layouts, sizes and checksums. To add one, add an entry.

Source: https://grouplens.org/datasets/movielens/ and each release's README.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple


@dataclass(frozen=True)
class Layout:
    """How the files of a release are named and encoded."""

    name: str
    ratings: str
    movies: str
    encoding: str = "utf-8"
    lowest: float = 0.5
    """Lowest rating, in stars."""
    highest: float = 5.0
    """Highest rating, in stars."""

    def is_in(self, folder: Path) -> bool:
        """Whether the folder holds ratings and movies in this layout."""
        return (folder / self.ratings).is_file() and (folder / self.movies).is_file()


CSV: Final = Layout("csv", "ratings.csv", "movies.csv")
DOUBLE_COLON: Final = Layout("double-colon", "ratings.dat", "movies.dat")
DOUBLE_COLON_1M: Final = Layout("double-colon", "ratings.dat", "movies.dat", "latin-1", lowest=1.0)
TABS: Final = Layout("tabs", "u.data", "u.item", "latin-1", lowest=1.0)


class Size(NamedTuple):
    """Row counts that tell one release from another and from other data."""

    num_ratings: int
    num_users: int
    """Users with a rating."""
    num_movies: int
    """Movies in the file of movies."""


@dataclass(frozen=True)
class Release:
    """A release, as published."""

    layout: Layout
    size: Size
    md5: str | None = None
    """MD5 of the archive, from ``<release>.zip.md5``; None for a release that is replaced from time
    to time, whose MD5 is downloaded."""


RELEASES: Final[dict[str, Release]] = {
    "ml-latest-small": Release(CSV, Size(100_836, 610, 9_742)),
    "ml-latest": Release(CSV, Size(33_832_162, 330_975, 86_537)),
    "ml-32m": Release(CSV, Size(32_000_204, 200_948, 87_585), "d472be332d4daa821edc399621853b57"),
    "ml-25m": Release(CSV, Size(25_000_095, 162_541, 62_423), "6b51fb2759a8657d3bfcbfc42b592ada"),
    "ml-20m": Release(CSV, Size(20_000_263, 138_493, 27_278), "cd245b17a1ae2cc31bb14903e1204af3"),
    "ml-10m": Release(
        DOUBLE_COLON, Size(10_000_054, 69_878, 10_681), "ce571fd55effeba0271552578f2648bd"
    ),
    "ml-1m": Release(
        DOUBLE_COLON_1M, Size(1_000_209, 6_040, 3_883), "c4d9eecfca2ab87c1945afe126590906"
    ),
    "ml-100k": Release(TABS, Size(100_000, 943, 1_682), "0e33842e24a9c977be4e0107933c0723"),
}
"""Every release, by name. ``ml-latest`` and ``ml-latest-small`` are those of July 2023 and
September 2018."""


def recognise(size: Size) -> str | None:
    """The release that has exactly these row counts, if there is one."""
    return next((name for name, release in RELEASES.items() if release.size == size), None)
