"""Write the two forms of a lock from pip-compile's output with hashes.

    python -m dev.locks COMPILED requirements.lock requirements-hashed.lock

The first has a line for each package, and is for reading and for ``pip install --requirement``. The
second has the hashes of their files, for ``pip install --require-hashes --no-deps``. PyTorch is in
the first alone: which of its builds is installed depends on the machine.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BY_MACHINE: Final = "torch"


def entries(compiled: str) -> Iterator[tuple[str, str, str]]:
    """Name, version without build suffix, and lines with hashes of each package."""
    for entry in re.split(r"^(?=\S)", compiled, flags=re.MULTILINE):
        found = re.match(r"([A-Za-z0-9._-]+)==([^\s+]+)", entry)
        if found:
            yield found[1], found[2], entry.rstrip("\n")


def main(compiled: Path, plain: Path, hashed: Path) -> None:
    """Write both forms."""
    found = list(entries(compiled.read_text(encoding="utf-8")))
    plain.write_text("".join(f"{name}=={version}\n" for name, version, _ in found))
    kept = [lines for name, _, lines in found if name != _BY_MACHINE]
    hashed.write_text("".join(f"{lines}\n" for lines in kept))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
