"""What a job says while it works: plain lines, each with the time since the start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

_out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
_err = Console(soft_wrap=True, highlight=False, markup=False, emoji=False, stderr=True)
_started = time.monotonic()


def has_colours() -> bool:
    """Whether what is printed is seen on a terminal by somebody who has nothing against colours."""
    return all(console.is_terminal and not console.no_color for console in (_out, _err))


def say(line: str = "") -> None:
    """Print a line, with the seconds since the start of the program before it."""
    _out.print(f"{time.monotonic() - _started:7.1f}s  {line}")


def complain(message: str) -> None:
    """Print an error message."""
    _err.print(f"error: {message}", style="bold red")


def show(renderable: object) -> None:
    """Print a table or text as it is."""
    _out.print(renderable)


@contextmanager
def live() -> Iterator[Callable[[RenderableType], None]]:
    """A place below all lines for something that changes; where this is no terminal, nowhere."""
    if not _out.is_terminal:
        yield lambda shown: None
        return
    with Live(console=_out, transient=True, auto_refresh=False, redirect_stdout=False) as place:
        yield lambda shown: place.update(shown, refresh=True)


@contextmanager
def heading(title: str) -> Iterator[None]:
    """Announce a stage, and say how long it took."""
    started = time.monotonic()
    say(f"── {title}")
    yield
    say(f"   {title}: {time.monotonic() - started:.1f} s")
