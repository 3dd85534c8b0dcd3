"""What tests of whole programs share: running one as a user does, and looking for what it left."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TINY = (
    "name=tiny",
    "data.source=synthetic",
    "data.synthetic.num_users=60",
    "data.synthetic.num_movies=80",
    "data.synthetic.num_ratings=2000",
    "train.epochs=3",
    "train.batch_size=256",
    "tune.num_trials=3",
    "tune.grace_epochs=1",
    "compare.seeds=[0, 1]",
    "compare.trials_per_baseline=2",
    "choice.network.epochs=4",
    "choice.network.evaluate_every=2",
    "choice.network.dim=8",
    "tune.choice.num_trials=2",
    'tune.choice.space={"ease.content" = {low = 0.0, high = 6.0}, '
    '"network.learning_rate" = {low = 3e-3, high = 2e-2, log = true}}',
    'compare.choice.baselines=["popular", "ease"]',
    "compare.choice.trials_per_baseline=2",
    "recommend.top_n=5",
)
"""A configuration that is quick in every stage and leaves none out."""

_MARK = "PROCESS_OF_TEST"


def environment(mark: str = "") -> dict[str, str]:
    """The environment without what would lead to another cluster or to the real TMDb."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "TMDB_", "COLUMNS"))
    }
    return inherited | {_MARK: mark}


def processes_with(mark: str) -> dict[int, str]:
    """Running processes that inherited ``mark`` in their environment: id -> command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_MARK}={mark}".encode() in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(folder.name)] = command
        except OSError:  # ended meanwhile, or not ours
            continue
    return found


def ends(process: int, seconds: float) -> bool:
    """Whether a process ends within ``seconds``."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    # Readable means ended, see pidfd_open(2).
    ended = bool(select.select([handle], [], [], seconds)[0])
    os.close(handle)
    return ended


def left_after(mark: str, seconds: float) -> dict[int, str]:
    """Processes with ``mark`` that have not ended by themselves after at most ``seconds``."""
    deadline = time.monotonic() + seconds
    for process in processes_with(mark):
        ends(process, max(0.0, deadline - time.monotonic()))
    return processes_with(mark)


def assert_all_end(mark: str, seconds: float) -> None:
    """All processes with ``mark`` end by themselves within ``seconds``."""
    assert left_after(mark, seconds) == {}


@dataclass(frozen=True)
class Done:
    """A program that ended."""

    code: int
    out: str
    err: str
    mark: str
    """To look for processes it left."""


def run_module(
    module: str,
    settings: Sequence[str] = (),
    *options: str,
    timeout: float = 450,
    variables: Mapping[str, str] | None = None,
) -> Done:
    """``python -m <module> --set ...`` as a user runs it, in a clean environment.

    ``variables`` are added to this environment.
    """
    changes = [part for setting in settings for part in ("--set", setting)]
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [sys.executable, "-m", module, *changes, *options],
        cwd=ROOT,
        env=environment(mark) | dict(variables or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr, mark)


@contextlib.contextmanager
def running_module(module: str, settings: Sequence[str] = (), *options: str) -> Iterator[Running]:
    """The same, while it runs; what is still there at the end of the block is killed."""
    mark = uuid.uuid4().hex
    with running(environment(mark), module, settings, *options) as program:
        yield Running(program, mark)


@contextlib.contextmanager
def running(
    variables: dict[str, str], module: str, settings: Sequence[str], *options: str
) -> Iterator[subprocess.Popen[str]]:
    """The same in an environment of one's own."""
    changes = [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", module, *changes, *options],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class Running:
    """A program that runs."""

    process: subprocess.Popen[str]
    mark: str

    def wait_for(self, text: str) -> str:
        """The first line of its output that holds ``text``."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"the program ended without saying {text!r}:\n{''.join(lines)}")
