"""Published splits: files that list the training and the test ratings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import csv

from foundation.errors import shortened
from ncf.config import SplitConfig, SplitFiles
from ncf.data.splits import TEST, TRAIN, VALIDATION, Integers, Labels, refuse_empty
from ncf.errors import DataError

_COLUMNS: Final = ["userId", "movieId", "rating", "timestamp"]
_TYPES: Final = {"userId": pa.int64(), "movieId": pa.int64()}
_UNLISTED: Final = -1


@dataclass(frozen=True)
class _Pairs:
    """Ratings, each identified by its user and movie."""

    users: Integers
    movies: Integers

    def at(self, row: int) -> str:
        """A description of a rating for messages."""
        return f"user {self.users[row]}, movie {self.movies[row]}"


def assign(config: SplitConfig, folder: str, users: Integers, movies: Integers) -> Labels:
    """Label every row as listed in ``config.files``; draw validation rows from the training rows.

    Args:
        config: its ``validation`` is a share of all rows, as in the other splits.
        folder: base of relative names.
        users: ``[N]`` user ids, in file order.
        movies: ``[N]`` movie ids; pairs of user and movie are distinct.

    Raises:
        DataError: if a file cannot be read, if a listed rating is in both training and test or
            not in the data, or if a rating of the data is not listed.
    """
    assert config.files is not None
    rows = _Pairs(users, movies)
    train = _rows_listed(config.files.train, folder, rows)
    test = _rows_listed(config.files.test, folder, rows)
    _refuse_overlap(train, test, rows)
    labels = np.full(len(users), _UNLISTED, dtype=np.int8)
    labels[train] = TRAIN
    labels[test] = TEST
    _refuse_unlisted(labels, rows)
    shuffled = np.random.default_rng(config.seed).permutation(np.flatnonzero(labels == TRAIN))
    labels[shuffled[: round(config.validation * len(users))]] = VALIDATION
    refuse_empty(labels, config)
    return labels


def checksums(files: SplitFiles, folder: str) -> dict[str, list[str]]:
    """SHA-256 of each file, by split.

    Raises:
        DataError: if a file cannot be read.
    """
    return {
        split: [hashlib.sha256(_content(_locate(name, folder))).hexdigest() for name in names]
        for split, names in (("train", files.train), ("test", files.test))
    }


def _locate(name: str, folder: str) -> Path:
    """Find the file in ``folder`` or one level below, where a release's own folder may be."""
    path = Path(name).expanduser()
    if not path.is_absolute():
        if not folder:
            raise DataError(
                f"split.files names {name!r}, a path relative to data.path, which is not set. "
                "Set it, or give an absolute path."
            )
        root = Path(folder).expanduser()
        places = (root, *(sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else ()))
        found = [place / name for place in places if (place / name).is_file()]
        path = found[0] if found else root / name
    if not path.is_file():
        raise DataError(
            f"split.files names {name!r}, but there is no file {path}. Correct the name; files "
            "inside an archive must be unpacked first."
        )
    return path


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _rows_listed(names: tuple[str, ...], folder: str, rows: _Pairs) -> Integers:
    """Positions in ``rows`` of all ratings that the files list."""
    return np.concatenate([_positions(_locate(name, folder), rows) for name in names])


def _positions(file: Path, rows: _Pairs) -> Integers:
    table = _read(file)
    listed = _Pairs(table["userId"].to_numpy(), table["movieId"].to_numpy())
    keys, listed_keys = _keys(rows, listed)
    order = np.argsort(keys)
    nearest = np.minimum(np.searchsorted(keys, listed_keys, sorter=order), len(keys) - 1)
    positions = order[nearest]
    absent = np.flatnonzero(keys[positions] != listed_keys)
    if len(absent):
        raise DataError(
            f"{len(absent):,} of the {len(listed_keys):,} ratings in {file} are not in the data "
            f"set, the first: {listed.at(absent[0])}. Is it the split of another release?"
        )
    return positions.astype(np.int64)


def _read(file: Path) -> pa.Table:
    """User and movie of each rating, in a release's own notation: tabs as in ml-100k, two colons as
    in ml-1m and ml-10m, each without a header, or CSV with one.

    Raises:
        DataError: if the file is in none, or names no users and movies.
    """
    with file.open(encoding="utf-8-sig", errors="replace") as stream:  # all kinds of line breaks
        lines = enumerate(stream, 1)
        line, first = next(((number, text) for number, text in lines if text.strip()), (0, ""))
    delimiter, names = _notation(first)
    num_header = line if delimiter == "," else 0
    try:
        return csv.read_csv(
            file,
            # With a single thread, errors name the row.
            read_options=csv.ReadOptions(
                column_names=names, skip_rows=num_header, use_threads=False
            ),
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(
                column_types=_TYPES, include_columns=list(_TYPES), null_values=[]
            ),
        )
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise DataError(
            f"cannot read {file}: {shortened(str(error))}. Expected lines of userId, movieId, "
            "rating and timestamp with tabs or :: between them, or a CSV file whose header names "
            "userId and movieId."
        ) from error


def _notation(first: str) -> tuple[str, list[str]]:
    """Delimiter and column names of a file with this first line."""
    if "\t" in first:
        return "\t", _COLUMNS
    if "::" in first:  # an empty column between each two
        return ":", [name for column in _COLUMNS for name in (column, f"_{column}")][:-1]
    return ",", [name.strip().strip('"') for name in first.strip().split(",")]


def _keys(rows: _Pairs, listed: _Pairs) -> tuple[Integers, Integers]:
    """One number for each pair; equal pairs have equal numbers on both sides."""
    _, user_codes = np.unique(np.r_[rows.users, listed.users], return_inverse=True)
    movies, movie_codes = np.unique(np.r_[rows.movies, listed.movies], return_inverse=True)
    keys = user_codes.astype(np.int64) * len(movies) + movie_codes
    return keys[: len(rows.users)], keys[len(rows.users) :]


def _refuse_overlap(train: Integers, test: Integers, rows: _Pairs) -> None:
    both = np.intersect1d(train, test)
    if len(both):
        raise DataError(
            f"{len(both):,} ratings are in both split.files.train and split.files.test, the first: "
            f"{rows.at(both[0])}"
        )


def _refuse_unlisted(labels: Labels, rows: _Pairs) -> None:
    unlisted = np.flatnonzero(labels == _UNLISTED)
    if len(unlisted):
        raise DataError(
            f"{len(unlisted):,} of {len(labels):,} ratings are in neither split.files.train nor "
            f"split.files.test, the first: {rows.at(unlisted[0])}"
        )
