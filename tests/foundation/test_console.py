from __future__ import annotations

import logging
import re

import pytest

from foundation.console import heading, log_to_console


def test_lines_go_to_stdout_with_the_time_and_errors_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_to_console()
    log_to_console()  # lines are still printed once
    logger = logging.getLogger("ray_jobs.some_module")
    logger.debug("not shown")
    logger.info("%d trials", 3)
    logger.warning("a note with [brackets] and 5 %")
    logger.error("a mistake")

    printed = capsys.readouterr()
    first, second = printed.out.splitlines()
    assert re.fullmatch(r" *\d+\.\ds  3 trials", first)
    assert second.endswith("s  a note with [brackets] and 5 %")
    assert printed.err == "error: a mistake\n"


def test_lines_of_the_libraries_stand_below_the_heading(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_to_console()
    with heading("preprocess"):
        logging.getLogger("ncf.data.prepare").info("first pass")

    lines = [line.partition("s  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["── preprocess", "   first pass"]
    assert re.fullmatch(r"   preprocess: \d+\.\d s", lines[2])


def test_other_libraries_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_console()
    logging.getLogger("another.library").info("a line")
    assert capsys.readouterr() == ("", "")
