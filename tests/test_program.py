"""The installed program ``movie-ratings``: what it loads, and shell completion."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from foundation.config import keys
from ray_jobs.__main__ import COMMANDS
from ray_jobs.config import JobConfig
from tests.support import ROOT, environment

pytestmark = pytest.mark.system

HEAVY = ("ray", "torch", "pandas", "pyarrow", "optuna", "numpy")

LOADED = f"""
import runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as ended:
    print(chr(10) + repr((ended.code, [name for name in {HEAVY} if name in sys.modules])))
"""


def run_program(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as pip installs it from its entry point."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["movie-ratings"].partition(":")
    file = tmp_path_factory.mktemp("bin") / "movie-ratings"
    file.write_text(
        f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
        f"if __name__ == '__main__':\n    sys.exit({function}())\n"
    )
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [
        *((module, ["--help"], 0) for module in COMMANDS.values()),
        *((module, ["--confg"], 2) for module in COMMANDS.values()),
        *(("ray_jobs", [name, "--help"], 0) for name in COMMANDS),
        ("ray_jobs", ["--help"], 0),
        ("ray_jobs", ["--version"], 0),
        ("ray_jobs", ["trian"], 2),
        ("ray_jobs.train", ["--set", "train.epohcs=3"], 2),
        ("ray_jobs.train", ["--config", "nowhere.toml"], 2),
        ("ray_jobs.recommend", ["--user", "1", "--all"], 2),
        ("ingest", ["tmdb", "--help"], 0),
        ("ingest", ["tmdb", "--limit", "0"], 2),
    ],
)
def test_help_and_usage_errors_load_no_heavy_package(
    module: str, arguments: list[str], code: int
) -> None:
    done = run_program("-c", LOADED, module.removesuffix(".__main__"), *arguments)

    assert ast.literal_eval(done.stdout.splitlines()[-1]) == (code, []), done.stderr


@pytest.mark.parametrize("name", ["train", "cross-validate", "ingest"])
def test_the_installed_program_has_the_commands(name: str, script: Path) -> None:
    done = run_program(str(script), name, "--help")

    assert done.returncode == 0, done.stderr
    assert f"usage: movie-ratings {name} [" in done.stdout


def test_the_installed_program_passes_exit_codes_on(script: Path) -> None:
    done = run_program(str(script), "train", "--confg", "x.toml")

    assert done.returncode == 2
    assert "movie-ratings train: error: unknown option --confg; did you mean" in done.stderr


def completions(script: Path, *words: str) -> list[str]:
    """What bash is told to complete the last of ``words`` to."""
    done = run_program(
        str(script),
        _MOVIE_RATINGS_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["movie-ratings", *words]),
        COMP_CWORD=str(len(words)),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_commands_options_and_files_are_completed(script: Path) -> None:
    assert completions(script, "re") == ["plain,recommend", "plain,report"]
    assert completions(script, "recommend", "--u") == ["plain,--user"]
    assert completions(script, "ingest", "tm") == ["plain,tmdb"]
    assert completions(script, "train", "--config", "configs/q") == ["file,configs/q"]


def test_settings_are_completed_from_their_schema(script: Path) -> None:
    expected = [f"plain,{key}=" for key in keys(JobConfig) if key.startswith("train.e")]
    assert "plain,train.epochs=" in expected
    assert completions(script, "train", "--set", "train.e") == expected
    of_ingest = completions(script, "ingest", "tmdb", "--set", "")
    assert "plain,data.source=" in of_ingest
    assert "plain,train.epochs=" not in of_ingest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_script_for_each_shell(shell: str, script: Path) -> None:
    done = run_program(str(script), _MOVIE_RATINGS_COMPLETE=f"{shell}_source")

    assert done.returncode == 0, done.stderr
    assert "_movie_ratings_completion" in done.stdout
    assert {"bash": "compopt -o nospace", "zsh": '-S ""', "fish": "complete"}[shell] in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "expected"), [(("tra",), "train"), (("train", "--set", "train.epo"), "train.epochs=")]
)
def test_bash_completes(typed: tuple[str, ...], expected: str, script: Path) -> None:
    words = " ".join(["movie-ratings", *typed])
    program = f"""
        compopt() {{ :; }}  # fails outside of a completion that bash started
        eval "$(_MOVIE_RATINGS_COMPLETE=bash_source movie-ratings)"
        COMP_WORDS=({words}); COMP_CWORD={len(typed)}
        _movie_ratings_completion movie-ratings
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", program],
        env=environment()
        | {"PATH": f"{script.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == f"{expected}\n", done.stderr
