"""What a search shows of its trials, without Ray."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.console import Console

from foundation.console import LOGGERS, log_to_console, say, say_result
from foundation.storage import Storage
from ray_jobs.search.progress import RunningTrials, TrialProgress
from ray_jobs.search.trials import TrialRecords

if TYPE_CHECKING:
    from pathlib import Path

    from ray.tune.experiment import Trial
    from rich.table import Table


@pytest.fixture
def records(tmp_path: Path) -> TrialRecords:
    found = TrialRecords(Storage.at(tmp_path))
    for number, rate in ((1, 0.01234), (2, 0.5)):
        found.start(number, f"t{number}", {"train.learning_rate": rate, "train.loss": "mse"})
    return found


def trial(trial_id: str) -> Trial:
    return cast("Trial", SimpleNamespace(trial_id=trial_id))


def epoch(number: int, rmse: float, best: float) -> dict[str, Any]:
    errors = {"validation_rmse": rmse, "best_validation_rmse": best}
    return errors | {"epoch": number, "max_epochs": 6, "time_total_s": 0.8 * number}


def rows(table: Table) -> list[list[str]]:
    """The cells of a table, as a terminal shows them."""
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    lines = [line for line in capture.get().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_the_table_holds_the_trials_that_run_and_their_newest_epoch(records: TrialRecords) -> None:
    shown: list[Table] = []
    running = RunningTrials(records, shown.append)
    first, second = trial("t1"), trial("t2")
    settings = ("learning_rate=0.0123, loss=mse", "learning_rate=0.5, loss=mse")

    running.on_trial_start(0, [], first)
    running.on_trial_result(0, [], first, epoch(1, 0.95, 0.95))
    running.on_trial_start(0, [], second)
    running.on_trial_result(0, [], first, epoch(2, 0.97126, 0.95))
    running.on_trial_complete(0, [], first)
    running.on_trial_error(0, [], second)

    assert [rows(table) for table in shown] == [
        [["1", "", "", "", "", settings[0]]],
        [["1", "1/6", "0.9500", "0.9500", "1", settings[0]]],
        [["1", "1/6", "0.9500", "0.9500", "1", settings[0]], ["2", "", "", "", "", settings[1]]],
        [["1", "2/6", "0.9713", "0.9500", "2", settings[0]], ["2", "", "", "", "", settings[1]]],
        [["2", "", "", "", "", settings[1]]],
        [],
    ]


def test_a_line_for_each_trial_that_ends(
    records: TrialRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ({"epoch": 1, "best_validation_rmse": 0.95}, {"epoch": 2, "best_validation_rmse": 0.93})
    earlier = records.end("t1", state="stopped", epochs=good)
    lines = TrialProgress([earlier], 3)

    lines.ended(records.end("t2", state="failed", error="out of memory"))
    records.start(3, "t3", {"train.loss": "l1"})
    lines.ended(records.end("t3", state="finished", epochs=good[:1]))

    second, third = capsys.readouterr().out.splitlines()
    assert second.endswith("trial 2 (2/3 done): failed: out of memory  learning_rate=0.5, loss=mse")
    assert third.endswith(
        "trial 3 (3/3 done): RMSE 0.9500 after 1 epochs (best so far 0.9300)  loss=l1"
    )


def test_a_quiet_program_prints_results_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("foundation").level
    log_to_console(level=logging.WARNING)
    try:
        say("a trial")
        say_result("the best configuration")
    finally:
        for name in LOGGERS:
            logging.getLogger(name).setLevel(before)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("the best configuration")


SHOWS = """
from foundation.console import live, say
with live() as show:
    show("what changes")
    say("a line")
"""


def test_what_changes_is_shown_on_a_terminal_alone() -> None:
    command = [sys.executable, "-c", SHOWS]
    piped = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    leader, follower = pty.openpty()
    subprocess.run(command, stdin=follower, stdout=follower, stderr=follower, check=True)
    os.close(follower)
    on_terminal = os.read(leader, 10_000).decode()
    os.close(leader)

    assert piped.stdout.endswith("s  a line\n")
    assert "changes" not in piped.stdout
    assert "what changes" in on_terminal
    assert "s  a line" in on_terminal
