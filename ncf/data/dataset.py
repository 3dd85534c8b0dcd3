"""Read a prepared data set: the manifest, the preprocessor, and splits as tensors.

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
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from pyarrow import fs

from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor
from ncf.errors import DataError

if TYPE_CHECKING:
    import pyarrow.dataset as pds

MANIFEST: Final = "manifest.json"

COLUMNS: Final = ["user_index", "movie_index", "rating", "weight", "timestamp"]
"""Columns of a ``Batch``."""


@dataclass(frozen=True)
class Manifest:
    """Contents of a prepared folder."""

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
    """Consecutive rows of a file, not read yet."""

    first: int
    """Position of its first row in the release's file."""
    num_rows: int
    fragment: pds.ParquetFileFragment

    def read(self, columns: list[str]) -> pa.Table:
        """Read the rows in the calling thread only."""
        return self.fragment.to_table(columns=columns, use_threads=False)


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared folder; picklable, so that workers can open it themselves."""

    filesystem: fs.FileSystem
    folder: str
    manifest: Manifest

    @classmethod
    def open(cls, filesystem: fs.FileSystem, folder: str) -> PreparedDataset:
        """Open a folder that ``ncf.data.prepare.prepare`` has finished.

        Raises:
            DataError: if the folder has no valid manifest.
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
        """The preprocessor fitted to the training split."""
        return Preprocessor.load(self.filesystem, self.folder)

    def table(self, split: str, columns: list[str]) -> pa.Table:
        """Columns of a split's rows, in the order of the release's file."""
        # Ray writes blocks in any order; a fixed order makes training repeatable.
        wanted = list(dict.fromkeys(["row", *columns]))
        blocks = [file.to_table(columns=wanted) for file in self._files(split)]
        blocks.sort(key=lambda block: block["row"][0].as_py())
        table = pa.concat_tables(blocks)
        # Sorting copies the whole table, and usually only the order of blocks needs restoring.
        if not _is_ascending(table["row"]):
            table = table.sort_by("row")
        return table.select(columns)

    def row_groups(self, split: str) -> list[RowGroup]:
        """A split's rows as parts that can be read separately, in the order of the release's file.

        Raises:
            DataError: if the number of rows differs from that of the manifest.
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
        import pyarrow.dataset as pds  # imports pandas, which a query of a model does without

        files = pds.dataset(location, filesystem=self.filesystem, format="parquet")
        return list(files.get_fragments())

    def rows(self, split: str) -> Batch | None:
        """A whole split as tensors, or None for a split without rows."""
        if not self.manifest.counts[split]:
            return None
        batch = Batch.from_arrow(self.table(split, COLUMNS))
        # Otherwise Arrow retains the table's memory, which is more than the tensors take.
        pa.default_memory_pool().release_unused()
        return batch


def _is_ascending(rows: pa.ChunkedArray) -> bool:
    chunks = [chunk.to_numpy() for chunk in rows.chunks if len(chunk)]
    return all((chunk[1:] > chunk[:-1]).all() for chunk in chunks) and all(
        before[-1] < after[0] for before, after in pairwise(chunks)
    )
