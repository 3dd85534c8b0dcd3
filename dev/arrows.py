"""Print the rooms of each package, their modules, and the imports between rooms.

    python -m dev.arrows

A room is a module or subpackage directly in a package, such as ``ncf.data``. ``LAYERS`` and
``BELOW`` state which room and which package may import which; ``tests/test_layering.py`` enforces
them. The command exits with code 1 if an import points up.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]

BELOW: Final[Mapping[str, frozenset[str]]] = {
    "foundation": frozenset(),
    "ingest": frozenset({"foundation"}),
    "ncf": frozenset({"foundation"}),
    "ray_jobs": frozenset({"foundation", "ingest", "ncf"}),
}
"""Which packages each package may import."""

PACKAGES: Final = tuple(BELOW)

LAYERS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "ingest": (
        ("errors", "releases"),
        ("registry",),
        ("config",),
        ("manifest", "progress", "raw_data"),
        ("sources", "tmdb"),
        ("loopback", "options"),
        ("dataset",),
        ("commands",),
        ("__main__", "__init__"),
    ),
    "ncf": (
        ("registry", "errors"),
        ("config", "choice_config"),
        ("data",),
        ("models",),
        ("evaluation",),
        ("training", "baselines"),
        ("blending",),
        ("inference",),
        ("__init__",),
    ),
    "ray_jobs": (
        ("config", "errors", "redo"),
        ("results", "configurations"),
        ("cluster",),
        ("training", "web"),
        ("search",),
        ("stages", "queries"),
        ("cli", "__init__"),
        ("report",),
        (
            "preprocess",
            "tune",
            "compare",
            "train",
            "recommend",
            "predict",
            "export",
            "runs",
            "serve",
            "doctor",
            "cross_validate",
            "pipeline",
        ),
        ("__main__",),
    ),
}
"""From the lowest layer up: a room imports rooms of lower layers, never one of its own layer."""

Arrows = dict[str, set[str]]
"""The modules that each module imports."""


@cache
def modules() -> dict[str, str]:
    """Source of every module of the project, by its dotted name."""
    files = sorted(file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py"))
    return {_module_of(file): file.read_text(encoding="utf-8") for file in files}


def imports(source: str) -> set[str]:
    """All modules that ``source`` imports, inside functions too.

    ``from a.b import c`` yields ``a.b`` and ``a.b.c``, because ``c`` may be a module.

    Raises:
        ValueError: for a relative import.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"found a relative import in line {node.lineno}, expected none")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(str(node.module))
    return found


@cache
def arrows() -> Arrows:
    """The modules of the project that each of them imports, also behind ``TYPE_CHECKING``."""
    found: Arrows = {}
    for module, source in modules().items():
        named = imports(source)
        # ``from a.b import c`` also runs the package a.b, but the import is of a.b.c.
        targets = {
            name
            for name in named & modules().keys()
            if not any(f"{name}.{child}" in named for child in _children(name))
        }
        found[module] = targets - {module}
    return found


def package_of(module: str) -> str:
    """The top-level package: ``ncf`` for ``ncf.data.splits``."""
    return module.split(".")[0]


def room_of(module: str) -> str:
    """The room within the package: ``data`` for ``ncf.data.splits``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def upward(package: str) -> list[str]:
    """Imports of ``package`` that ``BELOW`` or ``LAYERS`` forbid, as ``module -> module``."""
    return [
        f"{module} -> {target}"
        for module, targets in arrows().items()
        if package_of(module) == package
        for target in sorted(targets)
        if _points_up(module, target)
    ]


def _points_up(module: str, target: str) -> bool:
    package = package_of(module)
    if package_of(target) != package:
        return package_of(target) not in BELOW[package]
    if package not in LAYERS or room_of(module) == room_of(target):
        return False
    layer = {room: number for number, rooms in enumerate(LAYERS[package]) for room in rooms}
    return layer[room_of(target)] >= layer[room_of(module)]


def _module_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _children(package: str) -> list[str]:
    """Names of the modules directly in ``package``."""
    prefix = f"{package}."
    return [
        module.removeprefix(prefix)
        for module in modules()
        if module.startswith(prefix) and "." not in module[len(prefix) :]
    ]


def table(package: str) -> str:
    """The package's rooms with their modules, and the imports between its rooms."""
    rooms = Counter(room_of(module) for module in modules() if package_of(module) == package)
    between = Counter(
        (room_of(module), room_of(target))
        for module, targets in arrows().items()
        for target in targets
        if package_of(module) == package_of(target) == package
        and room_of(module) != room_of(target)
    )
    up = upward(package)
    lines = [
        f"{package}: {len(rooms)} rooms, {rooms.total()} modules, {len(between)} arrows between "
        f"rooms ({between.total()} imports), {len(up)} upwards"
    ]
    for room, count in sorted(rooms.items()):
        targets = ", ".join(f"{to} {n}" for (at, to), n in sorted(between.items()) if at == room)
        lines.append(f"  {room:16} {count:2} modules" + (f"  -> {targets}" if targets else ""))
    return "\n".join([*lines, *(f"  upwards: {arrow}" for arrow in up)])


def main() -> int:
    """Print all packages; the exit code."""
    print("\n\n".join(table(package) for package in PACKAGES))
    return int(any(upward(package) for package in PACKAGES))


if __name__ == "__main__":
    sys.exit(main())
