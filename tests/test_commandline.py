"""Every command's help, mistakes, exit codes and colours, as a user at a shell meets them."""

from __future__ import annotations

import importlib
import os
import pty
import re
import runpy
import subprocess
import sys
from pathlib import Path

import click
import pytest

from foundation import cli
from ingest import __main__ as ingest
from ingest import commands as ingest_commands
from ray_jobs.__main__ import COMMANDS
from ray_jobs.__main__ import main as movie_ratings
from ray_jobs.cli import job
from ray_jobs.config import JobConfig
from ray_jobs.redo import Redo
from tests.support import ROOT, environment

JOBS = tuple(
    module.removesuffix(".__main__") for module in COMMANDS.values() if module != "ingest.__main__"
)
ALL = ("ray_jobs", *JOBS, "ingest")
COLOUR = re.compile(r"\x1b\[[0-9;]*[34]\d")


def run(monkeypatch: pytest.MonkeyPatch, module: str, *arguments: str) -> int:
    """``python -m <module> <arguments>`` in this process; the exit code."""
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    # They are run a second time, under another name, if a test has imported them.
    is_package = hasattr(importlib.import_module(module), "__path__")
    program = f"{module}.__main__" if is_package else module
    monkeypatch.delitem(sys.modules, program, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMDB_ACCESS_TOKEN", "TMDB_API_KEY", "RAY_ADDRESS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def test_there_is_a_command_for_every_stage() -> None:
    stages = {"preprocess", "tune", "compare", "train", "recommend", "pipeline"}
    others = {"predict", "export", "runs", "cross_validate", "doctor", "report", "serve"}
    assert {f"ray_jobs.{name}" for name in stages | others} == set(JOBS)
    assert "ingest" in COMMANDS


@pytest.mark.parametrize("module", [*ALL, "ingest tmdb", "ingest ratings", "ingest synthetic"])
def test_help_is_short_and_complete(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *command = module.split()

    assert run(monkeypatch, name, *command, "--help") == 0

    told = capsys.readouterr().out
    assert f"usage: python -m {module}" in told
    for part in ("NO_COLOR", "TMDB_ACCESS_TOKEN", "TMDB_API_KEY", "exit codes:", "130 interrupted"):
        assert part in told
    assert "docs/configuration.md" in told
    assert ("RAY_ADDRESS" in told) == (name in JOBS and "--force" in told)
    if module != "ray_jobs":
        assert told.count(f"  python -m {module} ") + told.count(f"  python -m {module}\n") >= 1
    assert "`" not in told
    assert max(map(len, told.splitlines())) <= 80
    assert len(told.splitlines()) <= 60


def test_the_commands_are_listed_with_what_they_are_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert movie_ratings([]) == 0

    told = " ".join(capsys.readouterr().out.split())
    for name, module in COMMANDS.items():
        described = importlib.import_module(module).command.help
        assert described.partition(".")[0] in told
        assert f" {name} " in told


@pytest.mark.parametrize("module", ALL)
def test_the_version_is_that_of_the_package(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, module, "--version") == 0
    assert re.fullmatch(r"movielens-ray-tune \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("ray_jobs.pipeline --confg configs/quickstart.toml", "did you mean --config?"),
        ("ray_jobs.tune --confg=configs/quickstart.toml", "did you mean --config?"),
        ("ray_jobs.train --conf configs/quickstart.toml", "did you mean --config?"),
        ("ray_jobs.train -config configs/quickstart.toml", "did you mean --config?"),
        ("ray_jobs.predict --ot out.csv", "unknown option --ot; did you mean --out?"),
        ("ray_jobs.recommend --usr 3", "did you mean --user?"),
        ("ray_jobs.recommend --all --user 3", "--user is not allowed with --all"),
        ("ray_jobs.recommend --user -7 --zzz", "unknown option --zzz; --help lists the valid"),
        ("ray_jobs.recommend --user 3 --reasons 0", "'0' is not a whole number above 0"),
        ("ray_jobs.doctor stray", "unexpected arguments: stray"),
        ("ray_jobs.doctor --config configs/quickstat.toml", "Did you mean configs/quickstart.toml"),
        ("ray_jobs.doctor --set train.epoch", "Did you mean train.epochs=...?"),
        (
            "ray_jobs.doctor --set epochs=3",
            "Did you mean 'train.epochs' or 'choice.network.epochs'",
        ),
        ("ray_jobs.doctor --set train.epohcs=3", "Did you mean 'epochs'?"),
        (
            "ray_jobs.doctor --set tune.epochs=3",
            "Did you mean 'train.epochs' or 'choice.network.epochs'",
        ),
        ("ray_jobs.cross_validate", "cross_validate.folds names no fold"),
        ("ray_jobs recomend", "unknown command 'recomend'; did you mean recommend?"),
        ("ray_jobs cross_validate", "did you mean cross-validate?"),
        ("ray_jobs zzz", "expected one of run, ingest, preprocess, tune"),
        ("ray_jobs train --confg x.toml", "did you mean --config?"),
        ("ray_jobs ingest tmdb --limt 3", "did you mean --limit?"),
        ("ray_jobs --config x.toml train", "options follow the command: COMMAND --config ..."),
        ("ray_jobs --versoin", "did you mean --version?"),
        ("ray_jobs.pipeline configs/quickstart.toml", "mean --config configs/quickstart.toml?"),
        ("ingest tmdb configs/quickstart.toml", "did you mean --config configs/quickstart.toml?"),
        ("ray_jobs.recommend --movie=", "the title is empty"),
        ("ray_jobs.train --set storage=s3://", "names no bucket or folder"),
        ("ray_jobs.train --set storage=nonsense://x", "cannot open the storage"),
        ("ray_jobs.predict --force pairs.csv --out out.csv", "unknown option --force"),
        ("ray_jobs.serve --force", "unknown option --force"),
        (
            "ingest --config configs/quickstart.toml movielens",
            "options follow the command: COMMAND --config ...",
        ),
        ("ingest --help-me", "unknown option --help-me; did you mean --help?"),
        ("ingest synthetic --set storage=s3://", "names no bucket or folder"),
        ("ingest tmdb --purge --set storage=s3://", "names no bucket or folder"),
        ("ingest", "Missing command."),
        ("ingest movielns", "unknown command 'movielns'"),
        ("ingest tmdb --limt 3", "did you mean --limit?"),
        ("ingest tmdb --limit 0", "'0' is not a whole number above 0"),
        ("ingest ratings --set data.pth", "Did you mean data.path=...?"),
        ("ingest ratings --set dta.path=x", "Did you mean 'data.path'?"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_what_was_meant(
    command: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(monkeypatch, *command.split()) == 2

    message = capsys.readouterr().err
    assert told in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        *((module, []) for module in ("preprocess", "tune", "compare", "train", "recommend")),
        *((module, []) for module in ("pipeline", "doctor")),
        ("predict", ["pairs.csv", "--out", "out.csv"]),
        ("export", ["--out", "out"]),
        ("cross_validate", ["--set", 'cross_validate.folds={a={train=["a"], test=["b"]}}']),
    ],
)
def test_a_job_that_fails_ends_with_1(
    module: str,
    needed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = ["--set", f"storage={tmp_path / 'file'}", "--set", "data.source=synthetic"]

    assert run(monkeypatch, f"ray_jobs.{module}", *settings, *needed) == 1

    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message


def test_an_option_after_two_dashes_or_below_zero_is_a_value(tmp_path: Path) -> None:
    seen = []

    options = (click.Option(["--number"], type=float), click.Argument(["rest"], nargs=-1))

    @job("note", "Take note.", options)
    def command(config: JobConfig, redo: Redo, number: float, rest: tuple[str, ...]) -> None:
        seen.append((config.name, number, rest))

    arguments = ["--set=name=x", "--number", "-2.5", "--", "--unknown"]
    assert cli.main(command, arguments) == 0
    assert seen == [("x", -2.5, ("--unknown",))]


def test_the_ingester_is_interrupted_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest_commands, "_run", interrupted)
    assert ingest.main(["synthetic"], {}) == 130
    assert "run again to continue" in capsys.readouterr().err


PROGRAM = """
from rich.table import Table
from ingest.tmdb.progress import Tally, view
from foundation.console import print_error, has_colours, log_to_stderr, say, show

say("a line")
say(f"Ray may use colours: {has_colours()}")
print_error("a mistake")
table = Table("column")
table.add_row("cell")
show(table)
with log_to_stderr("ingest"), view() as shown:
    shown.show(Tally(total=4, ok=1, requests=1))
"""


def on_a_terminal(**variables: str) -> str:
    """All that the program writes, to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment() | {"TERM": "xterm-256color"} | variables,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 4096):
                written += part
        except OSError:  # how Linux says that the other end was closed
            pass
        os.close(ours)
    assert process.returncode == 0, written
    return written.decode()


def test_a_terminal_has_colours_and_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    written = on_a_terminal()
    assert COLOUR.search(written)
    assert "Ray may use colours: True" in written
    assert "1/4" in written
    assert "TMDb 1/4 movies" not in written


def test_no_color_leaves_the_colours_out() -> None:
    written = on_a_terminal(NO_COLOR="1")
    assert "a mistake" in written
    assert not COLOUR.search(written)
    assert "Ray may use colours: False" in written
    assert "1/4" in written


def test_a_terminal_that_cannot_move_the_cursor_has_plain_lines() -> None:
    written = on_a_terminal(TERM="dumb")
    assert "\x1b" not in written
    assert "TMDb 1/4 movies" in written


def test_a_file_or_pipe_has_neither_colours_nor_a_bar() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[0].endswith("s  a line")
    assert "Ray may use colours: False" in done.stdout
    assert "error: a mistake" in done.stderr
    assert "TMDb 1/4 movies" in done.stderr
