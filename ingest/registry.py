"""The data sources that ``data.source`` may name. To add one, write its class and add an entry.

Settings are validated, and the help and docs/configuration.md written, from this table;
docs/how-to.md has an example of a new source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ingest.releases import RELEASES


@dataclass(frozen=True)
class SourceEntry:
    """What a configuration has to know of a source."""

    implementation: str
    """``module:name`` of the subclass of ``ingest.sources.base.Source``."""
    meaning: str
    """What the name selects, for the documentation of ``data.source``."""
    path: str | None = None
    """What ``data.path`` must hold; None if the source can do without."""


AUTO: Final = "auto"
"""The value of ``data.source`` that leaves the choice to the program."""
DEFAULT_RELEASE: Final = "ml-latest-small"
SYNTHETIC: Final = "synthetic"
FOLDER: Final = "folder"
TABLE: Final = "table"
NETFLIX: Final = "netflix-prize"

_MOVIELENS: Final = SourceEntry(
    "ingest.sources.movielens:MovieLensSource",
    "a MovieLens release, from ``data.path`` or downloaded",
)

SOURCES: Final[dict[str, SourceEntry]] = {
    SYNTHETIC: SourceEntry("ingest.sources.synthetic:SyntheticSource", "generated data"),
    FOLDER: SourceEntry(
        "ingest.sources.folder:FolderSource",
        "your own files in ``data.path``",
        path="the folder with ratings.csv and movies.csv",
    ),
    TABLE: SourceEntry(
        "ingest.sources.table.source:TableSource",
        "your own table of any shape",
        path="a CSV or Parquet file with ratings or clicks, or a folder with one",
    ),
    **dict.fromkeys(RELEASES, _MOVIELENS),
    NETFLIX: SourceEntry(
        "ingest.sources.netflix:NetflixPrizeSource",
        "the Netflix Prize's files in ``data.path``",
        path="the folder with movie_titles.csv and combined_data_1.txt to combined_data_4.txt",
    ),
}
"""Every source, by the value of ``data.source`` that selects it."""


def meanings() -> str:
    """What each value of ``data.source`` selects, in one sentence."""
    names: dict[str, list[str]] = {}
    for name, entry in SOURCES.items():
        names.setdefault(entry.meaning, []).append(f"``{name}``")
    parts = [f"{', '.join(group)}: {meaning}" for meaning, group in names.items()]
    parts.append(
        f"``{AUTO}``: the files in ``data.path`` if it is set, else {DEFAULT_RELEASE}, downloaded, "
        "else generated data"
    )
    return "; ".join(parts)
