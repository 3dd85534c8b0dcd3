"""Which MovieLens releases there are, in which layout, and where a folder on disk holds one.

Source: https://grouplens.org/datasets/movielens/ and each release's README.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingest.errors import DatasetError


@dataclass(frozen=True)
class Layout:
    """How the files of a release are named and encoded."""

    name: str
    ratings: str
    movies: str
    encoding: str = "utf-8"
    lowest: float = 0.5
    highest: float = 5.0

    def is_in(self, folder: Path) -> bool:
        """Whether the folder holds this layout's ratings and movies."""
        return (folder / self.ratings).is_file() and (folder / self.movies).is_file()


CSV: Final = Layout("csv", "ratings.csv", "movies.csv")
DOUBLE_COLON: Final = Layout("double-colon", "ratings.dat", "movies.dat")
DOUBLE_COLON_1M: Final = Layout("double-colon", "ratings.dat", "movies.dat", "latin-1", lowest=1.0)
TABS: Final = Layout("tabs", "u.data", "u.item", "latin-1", lowest=1.0)

RELEASES: Final[dict[str, Layout]] = {
    "ml-latest-small": CSV,
    "ml-latest": CSV,
    "ml-32m": CSV,
    "ml-25m": CSV,
    "ml-20m": CSV,
    "ml-10m": DOUBLE_COLON,
    "ml-1m": DOUBLE_COLON_1M,
    "ml-100k": TABS,
}

NUM_RATINGS: Final[dict[str, int]] = {
    "ml-latest-small": 100_836,
    "ml-latest": 33_832_162,
    "ml-32m": 32_000_204,
    "ml-25m": 25_000_095,
    "ml-20m": 20_000_263,
    "ml-10m": 10_000_054,
    "ml-1m": 1_000_209,
    "ml-100k": 100_000,
}
"""Ratings in each release, by its README; those of ``ml-latest`` grow."""

MD5: Final[dict[str, str]] = {
    "ml-32m": "d472be332d4daa821edc399621853b57",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
}
"""MD5 of the archives that never change, as GroupLens publishes them in ``<release>.zip.md5``."""

_FOLDERS: Final = {"ml-10M100K": "ml-10m"}
"""Folder names, inside the archives, that are not the release's."""


def release_of(folder: Path) -> str | None:
    """The release that a folder's name names."""
    name = _FOLDERS.get(folder.name, folder.name)
    return name if name in RELEASES else None


def locate(path: Path, release: str | None) -> tuple[Path, Layout]:
    """The folder with the ratings, at ``path`` or one level below, and its layout.

    Raises:
        DatasetError: if there is none, or not of the layout of ``release``.
    """
    if not path.exists():
        raise DatasetError(f"data.path = {str(path)!r} does not exist. {_expected(release)}")
    below = sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    # Several data sets may lie side by side: one that has the right name is meant.
    below.sort(key=lambda p: release is None or release_of(p) != release)
    for folder in (path, *below):
        layout = _layout_in(folder, release)
        if layout is not None:
            return folder, layout
    present = sorted(p.name for p in path.iterdir())[:10] if path.is_dir() else ["a file"]
    raise DatasetError(
        f"{path} holds no MovieLens data (found: {', '.join(present) or 'nothing'}). "
        f"{_expected(release)}"
    )


def _layout_in(folder: Path, release: str | None) -> Layout | None:
    if release is not None:
        layout = RELEASES[release]
        return layout if layout.is_in(folder) else None
    if CSV.is_in(folder):
        return CSV
    if DOUBLE_COLON.is_in(folder):
        return DOUBLE_COLON_1M if (folder / "users.dat").is_file() else DOUBLE_COLON
    return TABS if TABS.is_in(folder) else None


def _expected(release: str | None) -> str:
    if release is not None:
        layout = RELEASES[release]
        return f"Expected a folder (or zip) of {release} with {layout.ratings} and {layout.movies}."
    return (
        "Expected a folder (or zip) with ratings.csv and movies.csv, ratings.dat and movies.dat, "
        "or u.data and u.item."
    )
