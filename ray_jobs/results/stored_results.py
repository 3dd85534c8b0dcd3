"""Results of single models of a comparison, each stored as soon as it is there.

So an interrupted comparison trains only what is missing, and so does one that gets another model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import Field, asdict, dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from foundation.storage import Storage


class Result(Protocol):
    """A dataclass of what a model achieved."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def name(self) -> str:
        """Tells it from the other results."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of its predictions or rankings."""


R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class StoredResults(Generic[R]):
    """A folder with one file for each result, and the folder of the files that belong to them."""

    kind: type[R]
    folder: Storage
    files: Storage

    def find(self, name: str, key: str) -> R | None:
        """The stored result of the model ``name``, unless its ``key`` or a file is missing.

        Args:
            name: of the model.
            key: fingerprint of everything that the result depends on.
        """
        file = self._file(name)
        values = file.read_json() if file.exists() else {}
        if not isinstance(values, dict) or values.get("key") != key:
            return None
        try:
            result: R = TypeAdapter(self.kind).validate_python(values.get("result"))
        except ValidationError:  # of another version
            return None
        is_whole = all((self.files / name).exists() for name in result.files)
        return result if is_whole else None

    def store(self, key: str, result: R) -> None:
        """Store a result whose files have been written."""
        self._file(result.name).write_json({"key": key, "result": asdict(result)})

    def keep_only(self, keys: Mapping[str, str]) -> set[str]:
        """Delete all but the results with these keys by name; returns the names of their files.

        Files are to be deleted with ``delete_all_but``, as several kinds of results may share their
        folder.
        """
        found = {name: self.find(name, key) for name, key in keys.items()}
        kept = [result for result in found.values() if result]
        delete_all_but({self._file(result.name).name for result in kept}, self.folder)
        return {file for result in kept for file in result.files}

    def _file(self, name: str) -> Storage:
        return self.folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}.json"


def delete_all_but(names: Collection[str], folder: Storage) -> None:
    """Delete the other files of a folder."""
    for file in folder.list_files():
        if file.name not in names:
            file.delete()
