"""Rows that all workers of a machine share: one copy in memory, mapped from a temporary file."""

from __future__ import annotations

import contextlib
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

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset
from ncf.data.streaming import scratch_folder

_PREFIX: Final = "ratings-rows-"
_LOCK: Final = "lock"


@dataclass
class SharedRows:
    """The splits of one prepared data set in memory, as files that other workers map too.

    The first worker that needs a split writes its file; the system keeps its pages once, however
    many workers map them, and may drop them when memory is short. The last worker that releases
    them deletes the folder; if workers were killed, the next one of any data set does::

        ratings-rows-<user id>/      locked for moments, while folders are made and removed
          <data set>/                locked by every worker that uses it
            lock                     locked while a file is written
            <split>.safetensors
    """

    prepared: PreparedDataset

    def __post_init__(self) -> None:
        identity = f"{self.prepared.manifest.fingerprint} {self.prepared.folder}"
        self._name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._handle: int | None = None
        """Holds the lock on the data set's folder; the kernel releases those of processes that
        end."""

    def of(self, split: str) -> Batch | None:
        """A split's rows, or None if it has none.

        Raises:
            OSError: if there is no room for the file, or the folder is another user's.
        """
        if not self.prepared.manifest.counts[split]:
            return None
        folder = _base() / self._name
        self._use(folder)
        file = folder / f"{split}.safetensors"
        with _exclusive_lock(os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)):
            if not file.exists():
                self._write(split, file)
        # What a process changes is copied for it alone; but rows are never changed.
        return Batch(**load_file(file))

    def release(self) -> None:
        """Stop using the files; rows that were read from them stay valid."""
        if self._handle is None:
            return
        with _base_folder() as base:
            os.close(self._handle)
            self._handle = None
            _remove_unused(base / self._name)

    def _use(self, folder: Path) -> None:
        if self._handle is not None:
            return
        with _base_folder() as base:
            for other in base.iterdir():
                if other != folder:
                    _remove_unused(other)
            folder.mkdir(exist_ok=True)
            self._handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(self._handle, fcntl.LOCK_SH)

    def _write(self, split: str, file: Path) -> None:
        rows = self.prepared.rows(split)
        assert rows is not None
        partial = file.with_suffix(".part")
        try:
            save_file(vars(rows), partial)
            partial.replace(file)
        except SafetensorError as error:  # of the system, such as a full disk
            raise OSError(f"cannot write {partial}: {error}") from error
        finally:
            partial.unlink(missing_ok=True)


def _base() -> Path:
    place = scratch_folder(os.environ) or gettempdir()
    return Path(place) / f"{_PREFIX}{os.getuid()}"


@contextmanager
def _base_folder() -> Iterator[Path]:
    """The folder of all data sets, in which no other process makes or removes one meanwhile.

    Raises:
        OSError: if it cannot be made, or is another user's.
    """
    base = _base()
    while True:
        with contextlib.suppress(FileExistsError):
            base.mkdir(mode=0o700)
        try:
            handle = os.open(base, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:  # the last user has just removed it
            continue
        with _exclusive_lock(handle):
            opened = os.fstat(handle)
            if opened.st_uid != os.getuid():
                raise PermissionError(f"{base} belongs to another user")
            if _is_at(base, opened):
                yield base
                with contextlib.suppress(OSError):  # not empty
                    base.rmdir()
                return


def _is_at(path: Path, opened: os.stat_result) -> bool:
    """Whether what was opened at a path is still there."""
    try:
        return os.path.samestat(opened, path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _exclusive_lock(handle: int) -> Iterator[None]:
    """Wait for a lock, and close ``handle`` in the end, which releases it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_unused(folder: Path) -> None:
    """Remove a data set's folder unless a process uses it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(handle)
