"""Write a data set as of earlier moments, for choosing the settings of forecasts.

    python benchmarks/earlier.py FOLDER earlier
    movie-ratings compare --config configs/protocols/new-users.toml --set data.source=folder \\
        --set data.path=earlier/0.625 --set split.validation=0 --set name=earlier

FOLDER holds ratings.csv, movies.csv and, for TMDb, links.csv. The newest fifth of all ratings,
which ``split.kind = "global-time"`` tests with, is excluded. For each share of the other ratings, a
folder is written with the oldest ones, of which the newest fifth can be predicted from the older
ones. So settings can be chosen at several earlier times without test rows.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Final

import pandas as pd

SHARES: Final = (0.625, 0.8125, 1.0)
"""Shares of the ratings that are not in the newest fifth."""

_TEST: Final = 0.2


def write(folder: Path, out: Path, share: float) -> int:
    """Copy the data set with only the oldest ratings; returns their number."""
    ratings = pd.read_csv(folder / "ratings.csv").sort_values("timestamp", kind="stable")
    # As in the split: ratings as old as the oldest of the newest fifth belong to that fifth.
    first_tested = ratings["timestamp"].iloc[-max(1, round(_TEST * len(ratings)))]
    others = ratings[ratings["timestamp"] < first_tested]
    kept = others.iloc[: int(share * len(others))].sort_index()
    out.mkdir(parents=True, exist_ok=True)
    kept.to_csv(out / "ratings.csv", index=False)
    for name in ("movies.csv", "links.csv"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
    return len(kept)


def main() -> int:
    """Write one folder for each share."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="an unpacked release, such as ml-latest-small")
    parser.add_argument(
        "out", type=Path, help="folder for the results, one subfolder for each share"
    )
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), metavar="SHARE")
    options = parser.parse_args()
    if not all(0 < share <= 1 for share in options.shares):
        parser.error(f"shares must be above 0 and at most 1, found {options.shares}")
    if not (options.folder / "ratings.csv").exists():
        parser.error(f"{options.folder} holds no ratings.csv")
    for share in options.shares:
        where = options.out / f"{share:g}"
        print(f"{where}: {write(options.folder, where, share):,} ratings")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
