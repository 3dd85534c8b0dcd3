"""The state of a training in storage, from which it continues after its process was killed."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from foundation.storage import Storage
from ray_jobs.training.scratch import scratch_folder

_LATEST: Final = "latest.json"

S = TypeVar("S")


def read_state(stored: Storage, load: Callable[[Path], S | None]) -> S | None:
    """What ``load`` reads from the latest state in a folder; None if there is none.

    Raises:
        CheckpointError: if it is damaged or of another format version.
    """
    record = stored / _LATEST
    if not record.exists():
        return None
    with scratch_folder() as scratch:
        (stored / record.read_json()["folder"]).copy_to(Storage.at(scratch / "state"))
        return load(scratch / "state")


def write_state(state: S, stored: Storage, save: Callable[[S, Path], None]) -> None:
    """Replace the state in a folder; whenever this is interrupted, a whole one is there.

    Raises:
        StorageError: if the folder is not writable.
    """
    earlier = stored.list_folders()
    folder = stored / f"state-{uuid.uuid4().hex}"
    with scratch_folder() as scratch:
        save(state, scratch / "state")
        Storage.at(scratch / "state").copy_to(folder)
    (stored / _LATEST).write_json({"folder": folder.name})
    for each in earlier:
        each.delete()
