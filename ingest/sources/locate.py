"""Find the folder that holds ratings in one of MovieLens' layouts."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Final

from ingest.errors import DatasetError
from ingest.releases import CSV, DOUBLE_COLON, DOUBLE_COLON_1M, LAYOUTS, RELEASES, TABS, Layout
from ingest.sources.parsing import Format, Problems, is_int64, read_header, read_records

_FOLDERS: Final = {"ml-10M100K": "ml-10m"}
"""Folder names, inside the archives, that are not the release's."""


_NUMBERS: Final = ("userId", "movieId", "timestamp")
"""Columns of ratings.csv with whole numbers."""
_LOOKED_AT: Final = 100
"""Lines that show what a file holds."""
FILES: Final = frozenset(
    {"links.csv", "tags.csv", "tags.dat", "users.dat"}
    | {name for layout in LAYOUTS for name in (layout.ratings, layout.movies)}
)
"""Names of the files that are read, or distinguish one layout from another."""


def release_of(folder: Path) -> str | None:
    """The release that a folder is named after."""
    name = _FOLDERS.get(folder.name, folder.name)
    return name if name in RELEASES else None


def locate(path: Path, release: str | None) -> tuple[Path, Layout]:
    """The folder with the ratings, at ``path`` or one level below, and its layout.

    Raises:
        DatasetError: if there is none, or none in the layout of ``release``.
    """
    if not path.exists():
        raise DatasetError(f"data.path = {str(path)!r} does not exist. {_expected(release)}")
    below = sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    # Of several data sets side by side, the one with the release's name comes first.
    below.sort(key=lambda p: release is None or release_of(p) != release)
    for folder in (path, *below):
        layout = _layout_in(folder, release)
        if layout is not None:
            return folder, layout
    present = sorted(p.name for p in path.iterdir())[:10] if path.is_dir() else ["a file"]
    raise DatasetError(
        f"{path} holds no ratings in a layout that can be read (found: "
        f"{', '.join(present) or 'nothing'}). {_expected(release)}"
    )


def holds_ratings(path: Path) -> bool:
    """Whether there are ratings in one of MovieLens' layouts at ``path``.

    Those in CSV have its columns, and whole numbers in most of the first lines, other than a table
    with text ids or dates under the same names.
    """
    try:
        folder, layout = locate(path, None)
        if layout is not CSV:
            return True
        if not {*_NUMBERS, "rating"} <= set(read_header(folder / layout.ratings, Format())):
            return False
    except DatasetError:
        return False
    return _are_mostly_numbers(folder / layout.ratings)


def _are_mostly_numbers(file: Path) -> bool:
    lines = read_records(file, Format(), _NUMBERS, Problems(file))
    try:
        first = [fields for _, fields in islice(lines, _LOOKED_AT)]
    except DatasetError:
        return True  # which the reader of that layout refuses with a better message
    return all(2 * sum(map(is_int64, column)) >= len(first) for column in zip(*first, strict=True))


def _layout_in(folder: Path, release: str | None) -> Layout | None:
    if release is not None:
        layout = RELEASES[release].layout
        return layout if layout.is_in(folder) else None
    if CSV.is_in(folder):
        return CSV
    if DOUBLE_COLON.is_in(folder):
        return DOUBLE_COLON_1M if (folder / "users.dat").is_file() else DOUBLE_COLON
    return TABS if TABS.is_in(folder) else None


def _expected(release: str | None) -> str:
    if release is not None:
        layout = RELEASES[release].layout
        return f"Expected a folder (or zip) of {release} with {layout.ratings} and {layout.movies}."
    return (
        "Expected a folder (or zip) with ratings.csv and movies.csv, ratings.dat and movies.dat, "
        "or u.data and u.item. Correct data.path; of a table with other columns, name them: "
        "--columns user=COLUMN,item=COLUMN"
    )
