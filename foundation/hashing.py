"""Checksums of a table's values, independent of how the table is stored.

Parquet files with equal values differ with compression, row groups and library versions; these
checksums do not.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foundation.storage import Storage

_ROWS_AT_A_TIME: Final = 16_384


def of_file(file: Storage, columns: Iterable[str]) -> str:
    """SHA-256 over the named columns of a Parquet file, read in small batches."""
    parts: dict[str, str] = {}
    with file.filesystem.open_input_file(file.path) as stream:
        parquet = pq.ParquetFile(stream)
        for name in columns:
            # One digest for each stream of bytes of the column, so that the result does not depend
            # on the boundaries of batches.
            digests: dict[str, Any] = defaultdict(hashlib.sha256)
            kind = parquet.schema_arrow.field(name).type
            for batch in parquet.iter_batches(_ROWS_AT_A_TIME, columns=[name], use_threads=False):
                _update(digests, name, batch.column(0))
            streams = {path: digest.hexdigest() for path, digest in digests.items()}
            parts[f"{name}:{kind}"] = combined(streams)
    return combined(parts)


def combined(parts: dict[str, str]) -> str:
    """SHA-256 over named checksums."""
    text = "".join(f"{name} {checksum}\n" for name, checksum in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _update(digests: dict[str, Any], path: str, array: pa.Array) -> None:
    """Feed an array's validity, lengths and values, nulls as zeros, to the digests of ``path``."""
    digests[f"{path} valid"].update(array.is_valid().to_numpy(zero_copy_only=False).tobytes())
    kind = array.type
    if pa.types.is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        digests[f"{path} lengths"].update(lengths.to_numpy(zero_copy_only=False).tobytes())
        _update(digests, f"{path} items", array.flatten())
    elif pa.types.is_struct(kind):
        for field, child in zip(kind, array.flatten(), strict=True):
            _update(digests, f"{path} {field.name}", child)
    elif pa.types.is_string(kind):
        filled = pc.fill_null(array, "")
        lengths = pc.binary_length(filled).to_numpy(zero_copy_only=False)
        digests[f"{path} lengths"].update(lengths.tobytes())
        _update_text(digests[f"{path} text"], filled)
    else:
        if pa.types.is_temporal(kind):
            array = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        values = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
        digests[f"{path} values"].update(values.tobytes())


def _update_text(digest: Any, array: pa.Array) -> None:
    """Feed the characters of a string array without nulls, which are contiguous in memory."""
    if len(array) == 0:
        return
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    if data is not None:
        digest.update(memoryview(data)[int(bounds[0]) : int(bounds[-1])])
