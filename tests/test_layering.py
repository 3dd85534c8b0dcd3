"""Which package may import which: ``ray_jobs -> ncf -> ingest.schemas``, and Ray in one module."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("ingest", "ncf", "ray_jobs")
SOURCES = sorted(file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str) -> set[str]:
    """Every module that ``source`` imports anywhere in it, ``a.b`` and ``a.b.c`` for
    ``from a.b import c``, as ``c`` may be a module.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be checked"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(str(node.module))
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def imports_of(package: str) -> dict[str, set[str]]:
    return {
        module_of(file): imports(file.read_text(encoding="utf-8"))
        for file in SOURCES
        if module_of(file).split(".")[0] == package
    }


def test_the_packages_are_found() -> None:
    for package in PACKAGES:
        assert len(imports_of(package)) > 5


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b as x\nfrom c import d\ndef f():\n    if x:\n        import e, g.h\n"
    assert imports(source) == {"a.b", "c", "c.d", "e", "g.h"}


def test_ingest_imports_neither_ray_nor_torch_nor_the_packages_above_it() -> None:
    forbidden = {"ray", "torch", "ncf", "ray_jobs"}
    offending = {m: roots(n) & forbidden for m, n in imports_of("ingest").items()}
    assert {module: names for module, names in offending.items() if names} == {}


def test_ncf_imports_the_schemas_from_ingest_and_nothing_else() -> None:
    for module, names in imports_of("ncf").items():
        ours = {name for name in names if name.split(".")[0] == "ingest"}
        beyond = {n for n in ours if n != "ingest.schemas" and not n.startswith("ingest.schemas.")}
        assert beyond == set(), module


def test_only_the_pipeline_of_ncf_imports_ray() -> None:
    assert [m for m, n in imports_of("ncf").items() if "ray" in roots(n)] == ["ncf.pipeline"]


@pytest.mark.parametrize("package", ["ingest", "ncf"])
def test_nothing_below_imports_ray_jobs(package: str) -> None:
    assert [m for m, n in imports_of(package).items() if "ray_jobs" in roots(n)] == []


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("ncf.training, ncf.checkpoint, ncf.serving, ncf.baselines, ncf.report", ["ray"]),
        ("ingest.stage, ingest.__main__", ["ray", "torch"]),
        ("ncf", ["ray", "torch", "numpy", "pyarrow", "pydantic"]),
    ],
)
def test_importing_does_not_load_what_is_not_needed(modules: str, absent: list[str]) -> None:
    """Also through third packages, which the sources do not show."""
    program = f"import sys, {modules}; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
