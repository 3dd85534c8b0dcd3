"""Stream rows from disk: read ahead while the model trains."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import numpy as np
import torch

from ncf.data.batches import WINDOW_ROWS, Batch, Batches
from ncf.data.dataset import COLUMNS, PreparedDataset, RowGroup

_ROW: Final = np.dtype(
    [
        ("users", np.int32),
        ("movies", np.int32),
        ("ratings", np.float32),
        ("weights", np.float32),
        ("times", np.int64),
    ]
)
"""A row on disk: 24 bytes."""

T = TypeVar("T")
_END: Final = object()


@dataclass(frozen=True)
class Streamed:
    """A split's rows, with at most two windows in memory.

    Before the first epoch all rows are read once and scattered over temporary files at random. A
    window is one of these files, and therefore a random sample of all rows. An epoch reads the
    windows in random order and permutes the rows of each. Unlike in a permutation of all rows, the
    rows of a window are consecutive, and rows in the same window stay in it in every epoch.

    Windows of consecutive rows would need no files, but they hold the rows of few users, and
    between two windows with rows of a user only the L2 penalty changes the user's vector: see "Rows
    that do not fit" in docs/performance.md.
    """

    prepared: PreparedDataset
    """Data set of the rows; every worker reads all of them, independent of its shard."""
    split: str
    """``train``, ``validation`` or ``test``."""
    device: torch.device
    """Device of the batches."""
    window: int = WINDOW_ROWS
    """Mean number of rows of a window."""

    def __len__(self) -> int:
        return self.prepared.manifest.counts[self.split]

    def in_memory(self) -> None:
        """None: the rows are on disk."""
        return

    def parts(self) -> Batches:
        """All rows in the release's order, a row group at a time."""
        yield from read_ahead(map(self._read, self.prepared.row_groups(self.split)))

    def shuffled_windows(self, generator: torch.Generator) -> Batches:
        """All rows once, a window at a time, in an order that depends only on ``generator``.

        Raises:
            OSError: if there is no space for the temporary files, which take 24 bytes a row.
        """
        files = self._scattered
        order = torch.randperm(len(files), generator=generator).tolist()
        # Drawn here, because the reading thread must not share the generator.
        seeds = torch.randint(2**62, (len(files),), generator=generator).tolist()
        yield from read_ahead(
            self._permuted(files[number], seed) for number, seed in zip(order, seeds, strict=True)
        )

    @cached_property
    def _scattered(self) -> Sequence[BinaryIO]:
        """The windows, in files without names, which disappear however the process ends."""
        count = math.ceil(len(self) / self.window)
        folder = scratch_folder(os.environ)
        files = [tempfile.TemporaryFile(dir=folder) for _ in range(count)]  # noqa: SIM115
        weakref.finalize(self, _close, files)
        for number, part in enumerate(self.parts()):
            rows = np.empty(len(part), _ROW)
            for name in _ROW.names or ():
                rows[name] = getattr(part, name).cpu()
            # The same for every seed and worker; the order of an epoch is drawn separately.
            window_of = np.random.default_rng(number).integers(count, size=len(rows))
            rows = rows[np.argsort(window_of, kind="stable")]
            ends = np.cumsum(np.bincount(window_of, minlength=count))
            for file, part_of_window in zip(files, np.split(rows, ends[:-1]), strict=True):
                file.write(part_of_window.data)
        return files

    def _permuted(self, file: BinaryIO, seed: int) -> Batch:
        file.seek(0)
        rows = np.fromfile(file, _ROW)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).numpy()
        columns = {name: torch.from_numpy(rows[name][order]) for name in _ROW.names or ()}
        return Batch(**columns).to(self.device)

    def _read(self, group: RowGroup) -> Batch:
        return Batch.from_arrow(group.read(COLUMNS)).to(self.device)


def _close(files: Sequence[BinaryIO]) -> None:
    for file in files:
        file.close()


def scratch_folder(environ: Mapping[str, str]) -> str | None:
    """Folder for temporary files of many gigabytes; None is Python's default."""
    # Python's default is /tmp, which is in memory on many systems.
    return None if "TMPDIR" in environ or not Path("/var/tmp").is_dir() else "/var/tmp"  # noqa: S108


def read_ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """The same items, each computed by a thread while the previous one is in use.

    At most two exist at a time, if the consumer releases each before requesting the next. Closing
    this generator ends the thread, and so does an exception of ``items``, which is raised here.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        ahead = reader.submit(next, iterator, _END)
        while (item := ahead.result()) is not _END:
            ahead = reader.submit(next, iterator, _END)
            yield item  # type: ignore[misc]
