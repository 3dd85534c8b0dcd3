"""Temporary folders that are removed even if their process is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "ratings-worker-"

_SECONDS_TO_LOCK: Final = 60.0
"""Time after which a folder without a lock has no process any more."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for this block; folders whose process was killed are removed first.

    Ray kills workers when a job is interrupted. The kernel releases a process's locks when it ends,
    so the folder of a running process is never taken for abandoned.
    """
    _remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        handle = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(handle)


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < _SECONDS_TO_LOCK:
                continue
            handle = os.open(folder, os.O_RDONLY)
        except OSError:  # removed meanwhile, or another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # in use
            continue
        finally:
            os.close(handle)
