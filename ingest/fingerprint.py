"""A checksum of what a table says, whatever way it is stored.

Parquet files of equal content differ with compression, row groups and library versions; the
fingerprint does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.storage import Storage


def of_file(file: Storage, columns: Iterable[str]) -> str:
    """SHA-256 over the named columns of a Parquet file, one column in memory at a time."""
    digest = hashlib.sha256()
    for name in columns:
        column = file.read_table([name])[name]
        digest.update(f"{name}:{column.type}:{len(column)}\n".encode())
        _update(digest, column.combine_chunks())
    return digest.hexdigest()


def combined(parts: dict[str, str]) -> str:
    """SHA-256 over named checksums."""
    text = "".join(f"{name} {checksum}\n" for name, checksum in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _update(digest: Any, array: pa.Array) -> None:
    """Feed an array's validity and values, nulls as zeros, to ``digest``."""
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    kind = array.type
    if pa.types.is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        digest.update(lengths.to_numpy(zero_copy_only=False).tobytes())
        _update(digest, array.flatten())
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            _update(digest, child)
    elif pa.types.is_string(kind):
        filled = pc.fill_null(array, "")
        digest.update(pc.binary_length(filled).to_numpy(zero_copy_only=False).tobytes())
        _update_text(digest, filled)
    else:
        if pa.types.is_temporal(kind):
            array = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        digest.update(pc.fill_null(array, 0).to_numpy(zero_copy_only=False).tobytes())


def _update_text(digest: Any, array: pa.Array) -> None:
    """Feed the characters of a string array without nulls, which lie side by side in memory."""
    if len(array) == 0:
        return
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    if data is not None:
        digest.update(memoryview(data)[int(bounds[0]) : int(bounds[-1])])
