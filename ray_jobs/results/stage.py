"""A stage: work that depends on its declared inputs alone, so that their hash decides whether it is
up to date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, singledispatch
from typing import Any, Final, Generic, TypeVar

from foundation.config import Section
from foundation.storage import Storage
from ingest.raw_data import RawData
from ncf.data.dataset import PreparedDataset

STAGE_VERSION: Final = 2
"""Increased when the code of a stage produces other outputs from the same inputs."""

Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Stage(Generic[Inputs]):
    """Work, what it depends on and what it makes."""

    name: str
    inputs: Inputs
    """A frozen dataclass with everything that the outputs depend on."""
    outputs: tuple[Storage, ...]
    """Files and folders that are there once it is done."""
    work: Callable[[Inputs], None]
    """Makes the outputs. A module-level function, or a ``partial`` of one that is given, besides,
    only where to write and what to run on, so that it can read nothing that is not hashed.
    """

    @cached_property
    def key(self) -> str:
        """Fingerprint of the inputs."""
        return key_of(self.inputs)

    def run(self) -> None:
        """Do the work."""
        self.work(self.inputs)


def key_of(inputs: Any) -> str:
    """Fingerprint of a stage's inputs and of the code's version."""
    return fingerprint(STAGE_VERSION, inputs)


def unfinished_work(folder: Storage, key: str, *, force: bool) -> Storage:
    """The folder in ``folder`` for the work of a stage whose inputs have this fingerprint.

    That of other inputs, which was interrupted, is deleted; with ``force`` that of the same, too.
    """
    name = key[:16]
    for each in folder.list_folders():
        if force or each.name != name:
            each.delete()
    return folder / name


def fingerprint(*parts: Any) -> str:
    """SHA-256 over the canonical JSON of ``parts``.

    Raises:
        TypeError: if ``canonical`` does not know the type of one of them, or of a value in it.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=canonical)
    return hashlib.sha256(text.encode()).hexdigest()


@singledispatch
def canonical(value: Any) -> Any:
    """What is hashed of a value that is not JSON already: the fields of a dataclass.

    Raises:
        TypeError: if it is not a dataclass.
    """
    if not is_dataclass(value):
        raise TypeError(f"a stage cannot depend on a {type(value).__name__}: it has no fingerprint")
    return {field.name: getattr(value, field.name) for field in fields(value)}


@canonical.register
def _(value: Section) -> Any:
    return value.model_dump(mode="json")


@canonical.register
def _(value: RawData) -> Any:
    # metrics.json holds attribution and licence, so they are inputs like the data.
    return [value.name, value.fingerprint, value.attribution, value.licence]


@canonical.register
def _(value: PreparedDataset) -> Any:
    return value.manifest.fingerprint
