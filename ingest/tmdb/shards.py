"""TMDb records on disk: atomic Parquet parts during a crawl, one sorted table at its end.

``tmdb.parts/`` holds the records that crawls have written since the last ``tmdb.parquet``. A movie
may have several rows in all files together; the newest counts, except that a failure never replaces
an earlier record.
"""

from __future__ import annotations

import io
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foundation.errors import StorageError
from foundation.schemas import TMDB, check_schema
from foundation.storage import PART_SUFFIX, Storage
from ingest.tmdb.client import NOT_LOOKED_UP
from ingest.tmdb.records import Row, TmdbRecord, from_row, to_table

TABLE: Final = "tmdb.parquet"
PARTS: Final = "tmdb.parts"

_ROWS_AT_A_TIME: Final = 2_000
"""Rows that a merge holds in memory at once, and rows in a row group of the table."""

_EVER: Final = 365.0 * 1000
"""Longest age in days; `inf` counts as this."""

_KEY_COLUMNS: Final = ["movie_id", "tmdb_id", "status", "error", "fetched_at"]


@dataclass(frozen=True)
class Standing:
    """Movies of a data set by the state of their records; sorted arrays of movie ids."""

    fresh: npt.NDArray[np.int64]
    """Recorded as ok or missing, recently enough."""
    stale: npt.NDArray[np.int64]
    """Recorded as ok or missing, too long ago or in the future."""
    failed: npt.NDArray[np.int64]
    """Tried without success."""
    untried: npt.NDArray[np.int64]
    """Without a record."""

    @property
    def pending(self) -> npt.NDArray[np.int64]:
        """Movies that a crawl has to fetch, sorted."""
        return np.sort(np.concatenate([self.untried, self.failed, self.stale]))


def encode(rows: Sequence[Row]) -> bytes:
    """The content of a part."""
    stream = io.BytesIO()
    # A part is read once, by the merge, so compression and statistics are not worth their time.
    pq.write_table(
        to_table(rows), stream, compression="lz4", use_dictionary=False, write_statistics=False
    )
    return stream.getvalue()


class Shards:
    """The TMDb records in one raw data set folder."""

    def __init__(self, folder: Storage) -> None:
        self._table = folder / TABLE
        self._parts = folder / PARTS

    def files(self) -> list[Storage]:
        """Every file that holds records, the merged table first."""
        merged = [self._table] if self._table.exists() else []
        return merged + self._parts.list_files(".parquet")

    def has_parts(self) -> bool:
        """Whether there are parts that have not been merged yet."""
        return bool(self._parts.list_files(".parquet"))

    def write(self, rows: Sequence[Row]) -> None:
        """Write one part, atomically.

        Raises:
            StorageError: if the place is not writable.
        """
        self.store(encode(rows))

    def store(self, part: bytes) -> None:
        """Write one part that ``encode`` made, atomically.

        Raises:
            StorageError: if the place is not writable.
        """
        (self._parts / f"{uuid.uuid4().hex}.parquet").write_bytes(part)

    def standing(
        self,
        movie_ids: npt.NDArray[np.int64],
        *,
        now: datetime,
        max_age_days: float,
        look_up: bool,
    ) -> Standing:
        """Which of ``movie_ids`` are done, too old, failed or untried.

        ``look_up`` tells whether movies that an earlier run did not look up by IMDb id count as
        untried.

        Raises:
            SchemaError: if a file is of another schema version.
            StorageError: if a file cannot be read.
        """
        keys = self._keys()
        keys = keys.filter(pc.is_in(keys["movie_id"], pa.array(movie_ids)))
        if look_up:
            left_out = pc.fill_null(pc.ends_with(keys["error"], NOT_LOOKED_UP), False)
            keys = keys.filter(pc.invert(left_out))
        ids = keys["movie_id"].to_numpy()
        failed = pc.equal(keys["status"], "failed").to_numpy()
        days = min(max_age_days, _EVER)
        limit = pa.scalar(now - timedelta(days=days), keys["fetched_at"].type)
        # Records from the future are of a clock that was ahead.
        latest = pa.scalar(now, keys["fetched_at"].type)
        fetched = keys["fetched_at"]
        old = pc.or_(pc.less_equal(fetched, limit), pc.greater(fetched, latest)).to_numpy()
        untried = np.setdiff1d(movie_ids, ids)
        return Standing(ids[~failed & ~old], ids[~failed & old], ids[failed], untried)

    def coverage(self) -> dict[str, int]:
        """Number of movies of each status."""
        counts = Counter(self._keys()["status"].to_pylist())
        return {status: counts[status] for status in ("ok", "missing", "failed")}

    def failures(self) -> dict[int, str]:
        """Reasons of the failed movies, by movie id."""
        keys = self._keys()
        failed = keys.filter(pc.equal(keys["status"], "failed"))
        return dict(zip(failed["movie_id"].to_pylist(), failed["error"].to_pylist(), strict=True))

    def left_out(self) -> dict[int, str]:
        """What was left out of ok records because it cannot be right, by movie id."""
        keys = self._keys()
        has_any = pc.and_(pc.equal(keys["status"], "ok"), pc.is_valid(keys["error"]))
        found = keys.filter(has_any)
        return dict(zip(found["movie_id"].to_pylist(), found["error"].to_pylist(), strict=True))

    def oldest(self) -> datetime | None:
        """When the oldest record was fetched."""
        found: datetime | None = pc.min(self._keys()["fetched_at"]).as_py()
        return found

    def records_of(self, tmdb_ids: set[int]) -> dict[int, TmdbRecord]:
        """The ``ok`` records of some TMDb ids, by TMDb id."""
        keys = self._keys()
        wanted = pc.and_(
            pc.is_in(keys["tmdb_id"], pa.array(sorted(tmdb_ids), pa.int64())),
            pc.equal(keys["status"], "ok"),
        )
        rows = (row for table in self._take(keys.filter(wanted)) for row in table.to_pylist())
        return {row["tmdb_id"]: from_row(row) for row in rows}

    def merge(self, movie_ids: npt.NDArray[np.int64]) -> bool:
        """Merge the rows of ``movie_ids`` into one table and remove the parts.

        If a movie has no row yet, nothing is done and false is returned: the parts stay until a
        later run completes them.

        Raises:
            StorageError: if the table cannot be written.
        """
        keys = self._keys()
        keys = keys.filter(pc.is_in(keys["movie_id"], pa.array(movie_ids)))
        if keys.num_rows < len(movie_ids):
            return False
        with (
            self._table.writing() as stream,
            pq.ParquetWriter(stream, TMDB, compression="zstd") as writer,
        ):
            for table in self._take(keys):
                writer.write_table(table)
        # A crash from here on leaves duplicate rows, which the next merge removes.
        self._parts.delete()
        return True

    def forget(self, movie_ids: npt.NDArray[np.int64]) -> None:
        """Remove the rows of ``movie_ids``, whose links have changed."""
        for file in self.files():
            table = _read(file)
            keep = pc.invert(pc.is_in(table["movie_id"], pa.array(movie_ids)))
            kept = table.filter(keep)
            if kept.num_rows == 0:
                file.delete()
            elif kept.num_rows < table.num_rows:
                file.write_table(kept)

    def purge(self) -> int:
        """Remove every TMDb record; the number of files removed."""
        files = self.files()
        self._table.delete()
        self._parts.delete()
        return len(files)

    def sweep(self) -> None:
        """Remove incomplete files of a killed crawl. The caller holds the folder's lock."""
        for folder in (self._parts, self._parts.parent):
            for file in folder.list_files(PART_SUFFIX):
                if file.name.startswith(".tmdb.parquet") or folder is self._parts:
                    file.delete()

    def _keys(self) -> pa.Table:
        """For each movie with a record, the row that counts and its location; sorted by movie."""
        tables = [TMDB.empty_table().select(_KEY_COLUMNS)]
        files = self.files()
        tables += [_read(file, _KEY_COLUMNS) for file in files]
        names = [file.name for file in files]
        keys = pa.concat_tables(tables).combine_chunks()
        sizes = [table.num_rows for table in tables[1:]]
        file = np.repeat(np.arange(len(sizes)), sizes)
        row = np.concatenate([np.arange(size) for size in [0, *sizes]])
        movie_id = keys["movie_id"].to_numpy()
        had = pc.not_equal(keys["status"], "failed").to_numpy()
        fetched_at = keys["fetched_at"].cast(pa.int64()).to_numpy()
        # What a crawl wrote after the last merge counts, whatever the clock said then.
        is_part = np.repeat([name != TABLE for name in names], sizes)
        order = np.lexsort((file, fetched_at, is_part, had, movie_id))
        ordered = movie_id[order]
        last = order[np.append(ordered[1:] != ordered[:-1], True)[: len(order)]]
        columns = {"file": pa.array(file[last]), "row": pa.array(row[last])}
        kept = keys.take(pa.array(last))
        for name, column in columns.items():
            kept = kept.append_column(name, column)
        return kept

    def _take(self, keys: pa.Table) -> Iterator[pa.Table]:
        """The complete rows that ``keys`` point at, in that order, a few thousand at a time."""
        reader = _RowReader(self.files())
        for start in range(0, keys.num_rows, _ROWS_AT_A_TIME):
            chunk = keys.slice(start, _ROWS_AT_A_TIME)
            yield reader.take(chunk["file"].to_numpy(), chunk["row"].to_numpy())


class _RowReader:
    """Reads rows by (file, row number) without holding whole tables."""

    def __init__(self, files: Sequence[Storage]) -> None:
        self._files = files

    def take(self, files: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> pa.Table:
        """The given rows, in the given order."""
        pieces, positions = [], []
        for file in np.unique(files):
            wanted = np.flatnonzero(files == file)
            pieces.append(self._rows(self._files[int(file)], rows[wanted]))
            positions.append(wanted)
        order = np.argsort(np.concatenate(positions), kind="stable")
        return pa.concat_tables(pieces).take(pa.array(order)).combine_chunks()

    @staticmethod
    def _rows(file: Storage, rows: npt.NDArray[np.int64]) -> pa.Table:
        """Rows of one file, from the row groups that contain them."""
        with file.filesystem.open_input_file(file.path) as stream:
            parquet = pq.ParquetFile(stream)
            sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
            starts = np.concatenate([[0], np.cumsum(sizes)])
            groups = np.searchsorted(starts, rows, side="right") - 1
            needed, inverse = np.unique(groups, return_inverse=True)
            table = parquet.read_row_groups([int(g) for g in needed])
            # Row groups that are left out shift the rows of those that follow.
            kept_starts = np.concatenate([[0], np.cumsum(np.asarray(sizes)[needed])])[:-1]
            local = rows - starts[groups] + kept_starts[inverse]
            return table.take(pa.array(local))


def _read(file: Storage, columns: list[str] | None = None) -> pa.Table:
    """A file of records, checked.

    Raises:
        SchemaError: if it is of another schema version.
        StorageError: if it cannot be read.
    """
    try:
        with file.filesystem.open_input_file(file.path) as stream:
            parquet = pq.ParquetFile(stream)
            check_schema(parquet.schema_arrow, TMDB, str(file))
            return parquet.read(columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise StorageError(
            f"cannot read {file} as Parquet: {error}. Delete that file, then run again: its "
            "records are fetched again."
        ) from error


def utc_now() -> datetime:
    """The current time."""
    return datetime.now(UTC)
