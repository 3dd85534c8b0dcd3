"""A lock that lets one process write a folder at a time.

On a local file system the operating system holds the lock and releases it when the process ends for
any reason. Object stores have no locks: there, the writer renews a lease file, which expires after
``LEASE_S`` seconds. Two writers that start in the same second may both acquire it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from foundation.errors import LockedError, StorageError
from foundation.storage import Storage

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK_FILE: Final = ".crawl.lock"
RUN_LOCK_FILE: Final = ".lock"
"""Of a run's folder."""
LEASE_S: Final = 60.0
"""Seconds after which a lease that was not renewed expires."""
_RENEWALS: Final = 4
"""Times that a lease is renewed before it would expire."""


@contextlib.contextmanager
def locked(folder: Storage, file: str = LOCK_FILE, *, waits: bool = False) -> Iterator[None]:
    """Hold the folder's lock during the block.

    Args:
        folder: what is written.
        file: its lock.
        waits: for a lease that is not renewed any more, as that of a process that was killed, until
            it expires.

    Raises:
        LockedError: if another process holds it.
        StorageError: if the folder cannot be written.
    """
    folder.make_folder()
    if folder.is_local and fcntl is not None:
        with _locked_by_system(folder / file, waits=waits):
            yield
    else:
        with _leased(folder / file, waits=waits):
            yield


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _refuse(file: Storage, owner: str) -> LockedError:
    return LockedError(
        f"{owner or 'another process'} is writing {file.parent}. Wait until it has finished, or "
        f"write somewhere else with --set {'name' if file.name == RUN_LOCK_FILE else 'storage'}=..."
    )


@contextlib.contextmanager
def _locked_by_system(file: Storage, *, waits: bool) -> Iterator[None]:
    path = Path(file.path)
    try:
        stream = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write {file}: {error.strerror or error}. "
            "Name a writable place with --set storage=..."
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise _refuse(file, stream.read().strip()) from None
        except OSError:  # a network file system without such locks
            stream.close()
            with _leased(file.parent / f"{file.name}.lease", waits=waits):
                yield
            return
        stream.truncate(0)
        stream.write(_owner())
        stream.flush()
        yield
        # Do not remove the file: a third process could then lock the removed one.


@contextlib.contextmanager
def _leased(file: Storage, *, waits: bool) -> Iterator[None]:
    identity = uuid.uuid4().hex

    def renew() -> None:
        file.write_json({"owner": _owner(), "identity": identity, "until": time.time() + LEASE_S})

    if file.exists():
        lease = file.read_json()
        if lease["until"] > time.time() and not (waits and _expires(file, lease["identity"])):
            raise _refuse(file, lease["owner"])
    renew()
    if file.read_json()["identity"] != identity:
        raise _refuse(file, "another process")
    done = threading.Event()

    def keep_renewing() -> None:
        while not done.wait(LEASE_S / _RENEWALS):
            try:
                renew()
            except StorageError as error:  # the next renewal may be in time
                logger.warning(f"the lease on {file.parent} could not be renewed: {error}")

    thread = threading.Thread(target=keep_renewing, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if file.exists() and file.read_json()["identity"] == identity:
            file.delete()


def _expires(file: Storage, identity: str) -> bool:
    """Wait until a lease expires, at most ``LEASE_S``; whether it did.

    One that is renewed meanwhile does not: its process lives.
    """
    found = file.read_json()
    until = found["until"]
    logger.info(f"waiting for the lease of {found['owner']} on {file.parent} to expire")
    while time.time() <= until:
        time.sleep(0.5)
        found = file.read_json() if file.exists() else None
        if found is None:
            return True
        if found["identity"] != identity or found["until"] != until:
            return False
    return True
