"""Prepared data on disk, read back: the manifest, the fitted state, and a split as tensors.

::

    manifest.json                       written last: without it the folder is not valid
    ratings/split=train/*.parquet       as ray_tasks.PREPARED; also validation and test
    fitted.json users.parquet movies.parquet
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import pyarrow as pa
import pyarrow.dataset as pds
from pyarrow import fs

from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor
from ncf.errors import DataError

MANIFEST: Final = "manifest.json"

COLUMNS: Final = ["user_index", "movie_index", "rating", "weight", "timestamp"]
"""What a ``Batch`` is made of."""


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds."""

    fingerprint: str
    """Hash of raw data, configuration and format version."""
    counts: dict[str, int]
    """Rows of each split."""
    num_users: int
    """Users with a training rating."""
    num_movies: int
    """Movies with a training rating."""


@dataclass(frozen=True)
class RowGroup:
    """Some consecutive rows of a file, not read yet."""

    first: int
    """Position of its first row in the release's file."""
    num_rows: int
    fragment: pds.ParquetFileFragment

    def read(self, columns: list[str]) -> pa.Table:
        """Its rows, by the thread that calls this and no other."""
        return self.fragment.to_table(columns=columns, use_threads=False)


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared folder; picklable, so that workers open it themselves."""

    filesystem: fs.FileSystem
    folder: str
    manifest: Manifest

    @classmethod
    def open(cls, filesystem: fs.FileSystem, folder: str) -> PreparedDataset:
        """Open a folder that ``ncf.data.prepare.prepare`` finished.

        Raises:
            DataError: if there is none.
        """
        try:
            with filesystem.open_input_stream(f"{folder}/{MANIFEST}") as stream:
                return cls(filesystem, folder, Manifest(**json.loads(stream.read())))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"{folder} holds no prepared data ({error}). Run the preprocess stage first."
            ) from error

    @cached_property
    def preprocessor(self) -> Preprocessor:
        """What was learned from the training split."""
        return Preprocessor.load(self.filesystem, self.folder)

    def table(self, split: str, columns: list[str]) -> pa.Table:
        """Columns of a split's rows, in the order of the release's file."""
        # Ray writes blocks in any order; a fixed order makes training repeatable.
        wanted = list(dict.fromkeys(["row", *columns]))
        blocks = [file.to_table(columns=wanted) for file in self._files(split)]
        blocks.sort(key=lambda block: block["row"][0].as_py())
        table = pa.concat_tables(blocks)
        # Sorting copies the whole table, and mostly the blocks' order is all there is to restore.
        if not _is_ascending(table["row"]):
            table = table.sort_by("row")
        return table.select(columns)

    def row_groups(self, split: str) -> list[RowGroup]:
        """A split's rows as parts that can be read alone, in the order of the release's file.

        Raises:
            DataError: if there are more or fewer rows than there should be.
        """
        groups = [
            RowGroup(part.row_groups[0].statistics["row"]["min"], part.row_groups[0].num_rows, part)
            for file in self._files(split)
            for part in file.split_by_row_group()
        ]
        found, expected = sum(group.num_rows for group in groups), self.manifest.counts[split]
        if found != expected:
            raise DataError(
                f"{self.folder} holds {found} {split} rows, its manifest says {expected}. Run the "
                "preprocess stage again, with --force."
            )
        return sorted(groups, key=lambda group: group.first)

    def _files(self, split: str) -> list[pds.ParquetFileFragment]:
        location = f"{self.folder}/ratings/split={split}"
        files = pds.dataset(location, filesystem=self.filesystem, format="parquet")
        return list(files.get_fragments())

    def rows(self, split: str) -> Batch | None:
        """A whole split as tensors, or None for a split without rows."""
        if not self.manifest.counts[split]:
            return None
        batch = Batch.from_arrow(self.table(split, COLUMNS))
        # Else Arrow keeps the table's memory for itself, more than the tensors take.
        pa.default_memory_pool().release_unused()
        return batch


def _is_ascending(rows: pa.ChunkedArray) -> bool:
    chunks = [chunk.to_numpy() for chunk in rows.chunks if len(chunk)]
    return all((chunk[1:] > chunk[:-1]).all() for chunk in chunks) and all(
        before[-1] < after[0] for before, after in pairwise(chunks)
    )
