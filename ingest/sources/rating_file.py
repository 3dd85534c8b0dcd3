"""Read and check the file of ratings of a data set in one of MovieLens' layouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from foundation.times import now
from ingest.errors import DatasetError
from ingest.releases import CSV, Layout
from ingest.sources.parsing import MAX_SHOWN, Format, Problems, lines_of, read_columns
from ingest.sources.reading import Reading
from ingest.sources.tables import merge_repeated, ratings_table, repeated_pairs
from ingest.sources.times import Converted, Refused, to_seconds

RATINGS_CSV: Final = Format(numeric=True)
# One colon as the delimiter leaves an empty column between each two: "1::122::5::838985046".
RATINGS_DAT: Final = Format(
    ":",
    columns=("userId", "_1", "movieId", "_2", "rating", "_3", "timestamp"),
    quoted=False,
    numeric=True,
)
RATINGS_TABS: Final = Format(
    "\t", columns=("userId", "movieId", "rating", "timestamp"), quoted=False, numeric=True
)
_RATING_TYPES: Final = {
    "userId": pa.int64(),
    "movieId": pa.int64(),
    "rating": pa.float32(),
    "timestamp": pa.int64(),
}


def _ratings_format(layout: Layout) -> Format:
    return {"csv": RATINGS_CSV, "double-colon": RATINGS_DAT, "tabs": RATINGS_TABS}[layout.name]


def read_ratings(reading: Reading, timestamp_unit: str, duplicates: str) -> pa.Table:
    """RATINGS, in the order of the file; repeated pairs are refused, or merged by the rule
    ``duplicates``.

    Raises:
        DatasetError: naming lines with values out of range, impossible times or repeated pairs, or
            if there is no rating.
    """
    file, form = reading.folder / reading.layout.ratings, _ratings_format(reading.layout)
    ratings = read_columns(file, form, _RATING_TYPES)
    if ratings.num_rows == 0:
        raise DatasetError(f"{file} holds no rating; expected at least one line of data")
    times = to_seconds(ratings["timestamp"].to_numpy(), timestamp_unit, now())
    problems = [
        *_out_of_range(ratings["rating"].to_numpy(), reading.layout),
        *([] if isinstance(times, Converted) else _impossible_times(times)),
        *(_repeated(ratings, file, form) if duplicates == "refuse" else ()),
    ]
    _refuse(problems, file, form)
    assert isinstance(times, Converted)
    if times.notice:
        reading.notice(f"{reading.layout.ratings}: {times.notice}.")
    reading.notice_open_end(reading.layout.ratings)
    table = ratings_table(ratings["userId"], ratings["movieId"], ratings["rating"], times.seconds)
    if duplicates == "refuse":
        return table
    merged, notice = merge_repeated(table, duplicates)
    if notice:
        reading.notice(f"{reading.layout.ratings}: {notice}.")
    return merged


@dataclass(frozen=True)
class _WrongRows:
    """Rows with the same kind of problem."""

    rows: list[int]
    """The first of them, from 0."""
    texts: list[str]
    """What is wrong with each."""
    count: int
    """Of all rows with this problem."""
    advice: str


def _refuse(problems: list[_WrongRows], file: Path, form: Format) -> None:
    """Report rows by their lines.

    Raises:
        DatasetError: if there are any.
    """
    if not problems:
        return
    lines = lines_of(file, form, [row for problem in problems for row in problem.rows])
    found = Problems(file)
    for problem in problems:
        texts = zip(problem.rows, problem.texts, strict=True)
        found.add_all([(lines[row], text) for row, text in texts], problem.count)
    found.refuse(" ".join(dict.fromkeys(problem.advice for problem in problems)))


def _out_of_range(stars: npt.NDArray[np.float32], layout: Layout) -> Iterator[_WrongRows]:
    # Every comparison with NaN is false, so this finds NaN as well.
    wrong = np.flatnonzero(~((stars >= layout.lowest) & (stars <= layout.highest)))
    if len(wrong):
        rows = wrong[:MAX_SHOWN].tolist()
        expected = f"expected {layout.lowest:g} to {layout.highest:g}"
        yield _WrongRows(
            rows,
            [f"rating is {stars[row]:g}, {expected}" for row in rows],
            len(wrong),
            "Correct the line, or convert the ratings to that scale"
            + (" (--set data.rating_scale=[1,10] does)." if layout is CSV else "."),
        )


def _impossible_times(times: Refused) -> Iterator[_WrongRows]:
    wrong = np.flatnonzero(times.wrong)
    rows = wrong[:MAX_SHOWN].tolist()
    yield _WrongRows(
        rows,
        [times.found(row) for row in rows],
        len(wrong),
        f"Expected timestamps in {times.expected}.",
    )


def _repeated(ratings: pa.Table, file: Path, form: Format) -> Iterator[_WrongRows]:
    users, movies = ratings["userId"].to_numpy(), ratings["movieId"].to_numpy()
    pairs, count = repeated_pairs(users, movies, MAX_SHOWN)
    if not pairs:
        return
    first_lines = lines_of(file, form, [first for first, _ in pairs])
    texts = [
        f"user {users[first]} rates movie {movies[first]} a second time (first on line "
        f"{first_lines[first]})"
        for first, _ in pairs
    ]
    yield _WrongRows(
        [second for _, second in pairs],
        texts,
        count,
        "Keep one of the two lines, or choose a rule: --set data.duplicates=last (or mean).",
    )
