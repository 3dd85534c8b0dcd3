"""``catalogue/people.parquet`` beside a checkpoint: directors and cast, by TMDb."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from foundation.storage import Storage
from ingest.raw_data import RawData
from ingest.tmdb.shards import TABLE

FILE: Final = "catalogue/people.parquet"
SCHEMA: Final = pa.schema([("movie_id", pa.int64()), ("people", pa.list_(pa.string()))])


def write_people(checkpoint: Storage, raw: RawData) -> None:
    """Write the names of directors and cast, in this order; nothing if the data have none."""
    records, file = raw.folder / TABLE, checkpoint / FILE
    if not raw.tmdb_coverage:  # records may stem from an earlier run that used TMDb
        file.delete()
        return
    table = records.read_table(["movie_id", "directors", "cast"])
    people = [
        list(dict.fromkeys(person["name"] for person in (*(directors or ()), *(cast or ()))))
        for directors, cast in zip(
            table["directors"].to_pylist(), table["cast"].to_pylist(), strict=True
        )
    ]
    found = pa.table([table["movie_id"], people], schema=SCHEMA)
    if not file.exists() or not file.read_table().equals(found):
        file.write_table(found)


def read_people(checkpoint: Storage) -> dict[int, tuple[str, ...]]:
    """The names of each movie by its id; none if they are not known."""
    file = checkpoint / FILE
    if not file.exists():
        return {}
    table = file.read_table()
    names = map(tuple, table["people"].to_pylist())
    return dict(zip(table["movie_id"].to_pylist(), names, strict=True))
