"""Which package may import which: every arrow of docs/architecture.md, and no circle anywhere."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("foundation", "ingest", "ncf", "ray_jobs")
SOURCES = sorted(file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py"))

LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "ingest": (
        ("config", "errors"),
        ("manifest", "progress"),
        ("sources", "tmdb"),
        ("loopback",),
        ("dataset",),
        ("__main__", "__init__"),
    ),
    "ncf": (
        ("registry", "errors"),
        ("config",),
        ("data",),
        ("models",),
        ("evaluation",),
        ("training", "baselines", "inference"),
        ("__init__",),
    ),
    "ray_jobs": (
        ("config", "errors"),
        ("results",),
        ("cluster",),
        ("training", "web"),
        ("search",),
        ("cli", "__init__", "__main__"),
        ("preprocess",),
        ("tune",),
        ("stages",),
        ("train", "compare"),
        ("recommend",),
        ("predict", "serve", "doctor"),
        ("report",),
        ("pipeline", "cross_validate"),
    ),
}
"""From the lowest layer up: a room imports rooms of lower layers, never one of its own layer."""

BELOW = {
    "foundation": set[str](),
    "ingest": {"foundation"},
    "ncf": {"foundation"},
    "ray_jobs": {"foundation", "ingest", "ncf"},
}
"""Which packages each package may import."""


def module_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file.read_text(encoding="utf-8") for file in SOURCES}


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


def arrows() -> dict[str, set[str]]:
    """The project's modules that each of them imports, also behind ``TYPE_CHECKING``."""
    found = {}
    for module, source in MODULES.items():
        targets = set()
        for name in imports(source):
            # ``from a.b import c``: the package a.b is run too, but what is wanted is a.b.c.
            if name in MODULES and not any(f"{name}.{m}" in imports(source) for m in _below(name)):
                targets.add(name)
        found[module] = targets - {module}
    return found


def _below(package: str) -> list[str]:
    """Names of the modules directly in ``package``."""
    prefix = f"{package}."
    return [
        m.removeprefix(prefix)
        for m in MODULES
        if m.startswith(prefix) and "." not in m[len(prefix) :]
    ]


def room_of(module: str) -> str:
    """The room within the package: ``data`` of ``ncf.data.splits``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, if there are any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_the_packages_are_found() -> None:
    for package in PACKAGES:
        assert len([m for m in MODULES if m.split(".")[0] == package]) > 5


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b as x\nfrom c import d\ndef f():\n    if x:\n        import e, g.h\n"
    assert imports(source) == {"a.b", "c", "c.d", "e", "g.h"}


def test_circles_are_found() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}
    assert circle({"a": {"b"}, "b": set()}) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(arrows()) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_those_below(package: str) -> None:
    allowed = BELOW[package] | {package}
    for module, targets in arrows().items():
        if module.split(".")[0] == package:
            assert roots(targets) <= allowed, module


@pytest.mark.parametrize("package", list(LAYERS))
def test_every_room_has_a_layer(package: str) -> None:
    rooms = {room_of(module) for module in MODULES if module.split(".")[0] == package}
    assert rooms == {room for layer in LAYERS[package] for room in layer}


@pytest.mark.parametrize("package", list(LAYERS))
def test_arrows_between_rooms_point_down(package: str) -> None:
    layer = {room: number for number, rooms in enumerate(LAYERS[package]) for room in rooms}
    upward = [
        f"{module} -> {target}"
        for module, targets in arrows().items()
        if module.split(".")[0] == package
        for target in targets
        if target.split(".")[0] == package
        and room_of(target) != room_of(module)
        and layer[room_of(target)] >= layer[room_of(module)]
    ]
    assert upward == []


@pytest.mark.parametrize("package", [p for p in PACKAGES if p != "ray_jobs"])
def test_ray_is_imported_in_one_module_below_ray_jobs(package: str) -> None:
    found = [
        m
        for m, source in MODULES.items()
        if m.split(".")[0] == package and "ray" in roots(imports(source))
    ]
    assert found == (["ncf.data.prepare"] if package == "ncf" else [])


def test_torch_is_imported_in_ncf_and_above_alone() -> None:
    below = [m for m in MODULES if m.split(".")[0] in ("foundation", "ingest")]
    assert [m for m in below if "torch" in roots(imports(MODULES[m]))] == []


@pytest.mark.parametrize("package", [m for m in MODULES if f"{m}/__init__.py" and "." in m])
def test_packages_say_what_is_in_them(package: str) -> None:
    file = REPOSITORY / package.replace(".", "/") / "__init__.py"
    if not file.is_file():
        return
    assert (ast.get_docstring(ast.parse(MODULES[package])) or "").strip()


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("ncf.training.loop, ncf.inference.recommender, ncf.baselines", ["ray"]),
        ("ncf.config", ["ray", "torch"]),
        ("ncf.data.ray_tasks", ["torch", "sklearn", "scipy"]),
        ("ingest.dataset, ingest.__main__", ["ray", "torch"]),
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
