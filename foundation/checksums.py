"""Checksums of a folder's files, which detect damaged and edited files.

They are no signature, so they do not tell who wrote the files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

CHECKSUMS: Final = "SHA256SUMS"
_READ: Final = frozenset({".json", ".parquet", ".safetensors"})
"""Endings of the files that a checkpoint or state consists of."""


def write_checksums(folder: Path) -> None:
    """Write a line for each file directly in it, in the format of ``sha256sum --check``."""
    files = sorted(each for each in folder.iterdir() if each.is_file() and each.name != CHECKSUMS)
    lines = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
    (folder / CHECKSUMS).write_text(lines, encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """Compare the files with their checksums.

    Raises:
        ValueError: if a file has changed since it was written, or was added.
        OSError: if one is missing.
    """
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    expected = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    # Others may add a note, and file managers leave files of their own: no program reads these.
    there = {each.name for each in folder.iterdir() if each.suffix in _READ}
    unlisted = sorted(there - expected.keys() - {CHECKSUMS})
    if unlisted:
        raise ValueError(
            f"{CHECKSUMS} does not list {', '.join(unlisted[:10])}, as it does every file that was "
            "written. Remove these files, copy the folder again, or train again"
        )
    if not expected or any(Path(name).name != name for name in expected):
        raise ValueError(f"{CHECKSUMS} lists no file, or files of other folders")
    changed = [name for name, checksum in expected.items() if sha256_of(folder / name) != checksum]
    if changed:
        raise ValueError(
            f"not as written, by their checksums in {CHECKSUMS}: {', '.join(changed)}. Copy the "
            "folder again, or train again"
        )


def sha256_of(file: Path) -> str:
    """SHA-256 of the content of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
