"""The MovieLens releases: their file layouts, sizes and checksums. To add one, add an entry.

Each SHA-256 was compared between several independent public records of the archive, which name the
MD5 that GroupLens publishes beside it.

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
    is_latin_1: bool = False
    """Whether the release's texts are in latin-1; the bytes of a file decide."""
    lowest: float = 0.5
    """Lowest rating, in stars."""
    highest: float = 5.0
    """Highest rating, in stars."""

    def is_in(self, folder: Path) -> bool:
        """Whether the folder holds ratings and movies in this layout."""
        return (folder / self.ratings).is_file() and (folder / self.movies).is_file()


CSV: Final = Layout("csv", "ratings.csv", "movies.csv")
DOUBLE_COLON: Final = Layout("double-colon", "ratings.dat", "movies.dat")
DOUBLE_COLON_1M: Final = Layout("double-colon", "ratings.dat", "movies.dat", True, lowest=1.0)
TABS: Final = Layout("tabs", "u.data", "u.item", True, lowest=1.0)
LAYOUTS: Final = (CSV, DOUBLE_COLON, DOUBLE_COLON_1M, TABS)


_STAND_IN: Final = 0.01
"""Data with a smaller share of a release's ratings are a stand-in for it, not a damaged copy."""
_NEARLY_ALL: Final = 0.99
"""Data with a larger share are a changed copy of it."""


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
    sha256: str | None = None
    """SHA-256 of the archive; None for a release that is replaced from time to time, which is
    checked against the MD5 that GroupLens publishes beside it."""
    max_megabytes: int = 1_000
    """No archive of this release is larger; a longer download is given up."""
    earlier: tuple[Size, ...] = ()
    """Sizes of earlier releases of that name."""

    def has_size(self, size: Size) -> bool:
        """Whether these are the row counts of the release, or of an earlier one of its name."""
        return size in (self.size, *self.earlier)


RELEASES: Final[dict[str, Release]] = {
    "ml-latest-small": Release(
        CSV,
        Size(100_836, 610, 9_742),
        max_megabytes=10,
        earlier=(Size(100_004, 671, 9_125), Size(105_339, 668, 10_329)),
    ),
    "ml-latest": Release(
        CSV,
        Size(33_832_162, 330_975, 86_537),
        earlier=(
            Size(27_753_444, 283_228, 58_098),
            Size(26_024_289, 270_896, 45_843),
            Size(24_404_096, 259_137, 40_110),
            Size(22_884_377, 247_753, 34_208),
        ),
    ),
    "ml-32m": Release(
        CSV,
        Size(32_000_204, 200_948, 87_585),
        "e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
        max_megabytes=239,
    ),
    "ml-25m": Release(
        CSV,
        Size(25_000_095, 162_541, 62_423),
        "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        max_megabytes=262,
    ),
    "ml-20m": Release(
        CSV,
        Size(20_000_263, 138_493, 27_278),
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        max_megabytes=199,
    ),
    "ml-10m": Release(
        DOUBLE_COLON,
        Size(10_000_054, 69_878, 10_681),
        "813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862",
        max_megabytes=66,
    ),
    "ml-1m": Release(
        DOUBLE_COLON_1M,
        Size(1_000_209, 6_040, 3_883),
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        max_megabytes=6,
    ),
    "ml-100k": Release(
        TABS,
        Size(100_000, 943, 1_682),
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        max_megabytes=5,
    ),
}
"""Every release, by name. ``ml-latest`` and ``ml-latest-small`` are those of July 2023 and
September 2018, and earlier ones."""


def recognise(size: Size) -> str | None:
    """The release that has exactly these row counts, if there is one."""
    return next((name for name, release in RELEASES.items() if release.has_size(size)), None)


def deviation(name: str, size: Size) -> str | None:
    """How data that are named after a release differ from it, if they do: a part is missing, or
    they are other data."""
    release = RELEASES[name]
    if release.has_size(size):
        return None
    parts = zip(("ratings", "users", "movies"), size, release.size, strict=True)
    counts = ", ".join(
        f"{found:,} {what} instead of {expected:,}" if found != expected else f"{found:,} {what}"
        for what, found, expected in parts
    )
    return f"{counts}, so the files are not {name} as published"


def is_damaged(name: str, size: Size) -> bool:
    """Whether data that are named after a release seem to be it, with a part missing.

    A small stand-in for the release, as for a test, is not damaged, and neither is a release of
    which a few ratings are left out.
    """
    published = RELEASES[name].size
    same_users = size.num_users == published.num_users
    is_like_it = same_users or size.num_movies == published.num_movies
    share = size.num_ratings / published.num_ratings
    return share < _NEARLY_ALL and (is_like_it or share >= _STAND_IN)
