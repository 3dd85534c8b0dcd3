"""Rows that all workers of a machine share: one copy in memory, mapped from a temporary file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Final

from safetensors.torch import load_file, save_file

from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset
from ncf.data.streaming import scratch_folder

_PREFIX: Final = "ratings-rows-"


@dataclass
class SharedRows:
    """The splits of one prepared data set in memory, as files that other workers map too.

    The first worker that needs a split writes its file; the system keeps its pages once, however
    many workers map them, and may drop them when memory is short. The last worker that releases
    them deletes the folder; if workers were killed, the next one of any data set does.
    """

    prepared: PreparedDataset

    def __post_init__(self) -> None:
        identity = f"{self.prepared.manifest.fingerprint} {self.prepared.folder} {os.getuid()}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._folder = _place() / f"{_PREFIX}{name}"
        self._handle: int | None = None
        """Holds a lock that tells others that the folder is in use; the kernel releases those of
        processes that end."""

    def of(self, split: str) -> Batch | None:
        """A split's rows, or None if it has none.

        Raises:
            OSError: if there is no room for the file.
        """
        if not self.prepared.manifest.counts[split]:
            return None
        file = self._folder / f"{split}.safetensors"
        with _alone():
            self._use()
            if not file.exists():
                self._write(split, file)
            # Copies of what a process changes are its own, but nobody changes rows.
            return Batch(**load_file(file))

    def release(self) -> None:
        """Stop using the files; those that map them keep what they have."""
        if self._handle is None:
            return
        with _alone():
            os.close(self._handle)
            self._handle = None
            _remove_unused(self._folder)

    def _use(self) -> None:
        if self._handle is not None:
            return
        for folder in _place().glob(f"{_PREFIX}*"):
            if folder != self._folder:
                _remove_unused(folder)
        self._folder.mkdir(exist_ok=True)
        self._handle = os.open(self._folder, os.O_RDONLY)
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def _write(self, split: str, file: Path) -> None:
        rows = self.prepared.rows(split)
        assert rows is not None
        partial = file.with_suffix(".part")
        save_file(vars(rows), partial)
        partial.replace(file)


def _place() -> Path:
    return Path(scratch_folder(os.environ) or gettempdir())


@contextmanager
def _alone() -> Iterator[None]:
    """No other process is in such a block meanwhile."""
    handle = os.open(_place(), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_unused(folder: Path) -> None:
    """Remove a folder that no process uses."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # another user's
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(handle)
