"""The console of a job: log lines, each with the time since the start, errors, and tables.

Modules log with ``logging.getLogger(__name__)``; a program calls ``log_to_console`` once to show
what they log.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

LOGGERS: Final = ("__main__", "foundation", "ingest", "ncf", "ray_jobs")
"""Loggers that are shown; a module that is run with ``python -m`` has the first name."""

_INDENTED: Final = ("ingest", "ncf")
"""Packages whose lines belong to a stage, and stand below its heading."""

_out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
_err = Console(soft_wrap=True, highlight=False, markup=False, emoji=False, stderr=True)
_started = time.monotonic()
_logger = logging.getLogger(__name__)


class ConsoleHandler(logging.Handler):
    """Prints errors to stderr, in red, and everything else to stdout, or to stderr too."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        super().__init__()
        self.console = _err if to_stderr else _out

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; unlike other handlers, raise what the stream raises."""
        if record.levelno >= logging.ERROR:
            print_error(self.format(record))
        else:
            indent = "   " if record.name.partition(".")[0] in _INDENTED else ""
            self.console.print(_timed(indent + self.format(record)))


def log_to_console(*, to_stderr: bool = False, level: int | None = None) -> None:
    """Show what the project's modules log from a level up, at first INFO. May be called again,
    which without ``level`` leaves it as it is.

    A command whose answer is printed to stdout logs ``to_stderr``.
    """
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for handler in [h for h in logger.handlers if isinstance(h, ConsoleHandler)]:
            logger.removeHandler(handler)
        logger.addHandler(ConsoleHandler(to_stderr=to_stderr))
        if level is not None or logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO if level is None else level)
        # Libraries may add a handler to the root logger, which would print every line again.
        logger.propagate = False


@contextmanager
def log_to_stderr(name: str, level: int = logging.INFO) -> Iterator[None]:
    """Print what a package logs from a level up to stderr, as it is, and nowhere else.

    For programs whose result is what they print to stdout. At the end of the block the logger is as
    before.
    """
    logger = logging.getLogger(name)
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [logging.StreamHandler()], False
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])


def has_colours() -> bool:
    """Whether stdout and stderr are terminals, and the user has not set ``NO_COLOR``."""
    return all(console.is_terminal and not console.no_color for console in (_out, _err))


def say(line: str = "") -> None:
    """Print a line of progress as a record of level INFO is printed, or not."""
    if not _is_quiet():
        say_result(line)


def say_result(line: str) -> None:
    """Print what a command was run for, on a line as those of progress."""
    handlers = [h for h in logging.getLogger(LOGGERS[1]).handlers if isinstance(h, ConsoleHandler)]
    (handlers[0].console if handlers else _out).print(_timed(line))


def _is_quiet() -> bool:
    """Whether a program left out what is less than a warning."""
    return logging.getLogger(LOGGERS[1]).level > logging.INFO


def _timed(line: str) -> str:
    return f"{time.monotonic() - _started:7.1f}s  {line}"


def print_error(message: str) -> None:
    """Print a message as a record of level ERROR is printed."""
    _err.print(f"error: {message}", style="bold red")


def show(renderable: object) -> None:
    """Print a table or text as it is."""
    _out.print(renderable)


def show_json(value: object) -> None:
    """Print a value as indented JSON."""
    _out.out(json.dumps(value, indent=2, ensure_ascii=False), highlight=False)


@contextmanager
def live() -> Iterator[Callable[[RenderableType], None]]:
    """A place below all lines for content that changes; outside a terminal, it is not shown."""
    if not _out.is_terminal or _is_quiet():
        yield lambda shown: None
        return
    with Live(console=_out, transient=True, auto_refresh=False, redirect_stdout=False) as place:
        yield lambda shown: place.update(shown, refresh=True)


@contextmanager
def heading(title: str) -> Iterator[None]:
    """Log the start of a stage, and how long it took."""
    started = time.monotonic()
    _logger.info("── %s", title)
    yield
    _logger.info("   %s: %.1f s", title, time.monotonic() - started)
