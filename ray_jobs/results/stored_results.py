"""Results of single models of a comparison, each stored as soon as it is there.

So an interrupted comparison trains only what is missing, and so does one that gets another model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from foundation.storage import Storage
from ray_jobs.results.comparison import ModelResult


@dataclass(frozen=True)
class StoredResults:
    """A folder with one file for each model, and the folder of their predictions."""

    folder: Storage
    predictions: Storage

    def find(self, name: str, key: str) -> ModelResult | None:
        """The stored result of the model ``name``, unless its ``key`` or a file is missing.

        Args:
            name: of the model.
            key: fingerprint of everything that the result depends on.
        """
        file = self._file(name)
        values = file.read_json() if file.exists() else {}
        if values.get("key") != key:
            return None
        result = TypeAdapter(ModelResult).validate_python(values["result"])
        is_whole = all((self.predictions / name).exists() for name in result.predictions)
        return result if is_whole else None

    def store(self, key: str, result: ModelResult) -> None:
        """Store a result whose predictions have been written."""
        self._file(result.name).write_json({"key": key, "result": asdict(result)})

    def keep_only(self, keys: Mapping[str, str]) -> None:
        """Delete all but the results with these keys by name, and predictions of no result."""
        found = {name: self.find(name, key) for name, key in keys.items()}
        kept = [result for result in found.values() if result]
        results = {self._file(result.name).name for result in kept}
        predictions = {file for result in kept for file in result.predictions}
        for folder, names in ((self.folder, results), (self.predictions, predictions)):
            for file in folder.list_files():
                if file.name not in names:
                    file.delete()

    def _file(self, name: str) -> Storage:
        return self.folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}.json"
