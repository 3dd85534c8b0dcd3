"""Which package and room may import which (``dev.arrows``), and no circular imports anywhere."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from dev import arrows as layering
from dev.arrows import BELOW, LAYERS, PACKAGES, REPOSITORY, arrows, imports, modules, room_of

MODULES = modules()


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a cycle, if there are any."""
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


def test_relative_imports_are_refused() -> None:
    with pytest.raises(ValueError, match="relative import in line 2, expected none"):
        imports("import a\nfrom . import b\n")


def test_an_import_that_points_up_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "ncf.data.batches": {"ncf.models.ncf", "ncf.config"},
        "ncf.models.ncf": {"ncf.data.batches", "ncf.models.layers"},
        "ncf.training.loop": {"ncf.baselines.base"},
        "foundation.lock": {"ingest.errors"},
    }
    monkeypatch.setattr(layering, "arrows", lambda: found)
    assert layering.upward("ncf") == [
        "ncf.data.batches -> ncf.models.ncf",
        "ncf.training.loop -> ncf.baselines.base",
    ]
    assert layering.upward("foundation") == ["foundation.lock -> ingest.errors"]


def test_the_command_prints_every_package_and_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert layering.main() == 0
    printed = capsys.readouterr().out
    for package in PACKAGES:
        count = sum(module.split(".")[0] == package for module in MODULES)
        assert f" rooms, {count} modules, " in printed.split(f"{package}: ")[1].splitlines()[0]
    assert "training" in printed


def test_cycles_are_found() -> None:
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}
    assert cycle({"a": {"b"}, "b": set()}) == []


def test_no_modules_import_each_other_in_a_cycle() -> None:
    assert cycle(arrows()) == []


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
    assert layering.upward(package) == []


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
        ("ray_jobs.search.persistent_trial, ray_jobs.training.task_queue", ["torch"]),
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


def test_what_is_private_in_ray_is_used_in_one_module_alone() -> None:
    users = {
        module
        for module, source in MODULES.items()
        for name in imports(source)
        if name.split(".")[0] == "ray"
        and any(part.startswith("_") or part == "generated" for part in name.split("."))
    }
    assert users == {"ray_jobs.cluster.ray_internals"}
