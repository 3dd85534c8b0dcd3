"""Progress of a long crawl: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ingest.progress import LOG_INTERVAL_S
from ingest.tmdb.records import Status

logger = logging.getLogger(__name__)

BAR_INTERVAL_S = 0.2


@dataclass
class Tally:
    """What a crawl has done so far, in movies and requests."""

    total: int
    ok: int = 0
    missing: int = 0
    failed: int = 0
    requests: int = 0
    retries: int = 0
    refusals: int = 0
    started: float = field(default_factory=time.monotonic)

    def count(self, status: Status) -> None:
        """Count one movie."""
        if status == "ok":
            self.ok += 1
        elif status == "missing":
            self.missing += 1
        else:
            self.failed += 1

    @property
    def done(self) -> int:
        """Movies that have been counted."""
        return self.ok + self.missing + self.failed

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Requests per second since the start."""
        return self.requests / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the mean pace; None before the first movie."""
        return self.elapsed_s / self.done * (self.total - self.done) if self.done else None

    def line(self) -> str:
        """All counts in one line."""
        eta = "?" if self.eta_s is None else f"{self.eta_s:.0f} s"
        return (
            f"TMDb {self.done:,}/{self.total:,} movies, {self.rate:.1f} requests/s, {eta} left, "
            f"{self.retries:,} retries, {self.refusals:,} rate-limited, {self.missing:,} missing, "
            f"{self.failed:,} failed"
        )


class View(Protocol):
    """Shows a tally."""

    interval_s: float

    def show(self, tally: Tally) -> None:
        """Show the counts."""


class LogView:
    """One log line every few seconds."""

    interval_s = LOG_INTERVAL_S

    def show(self, tally: Tally) -> None:
        """Log the counts."""
        logger.info(tally.line())


class BarView:
    """A progress bar on a terminal."""

    interval_s = BAR_INTERVAL_S

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("TMDb", total=None, note="")

    def show(self, tally: Tally) -> None:
        """Move the bar."""
        note = (
            f"{tally.rate:.1f}/s · {tally.retries:,} retries · {tally.refusals:,} rate-limited · "
            f"{tally.failed:,} failed"
        )
        self._progress.update(self._task, total=tally.total, completed=tally.done, note=note)


@contextlib.contextmanager
def view(console: Console | None = None) -> Iterator[View]:
    """A bar if ``console``, by default stderr, is a terminal that can draw one, else log lines.

    No bar is drawn where log lines of progress are left out.
    """
    console = console or Console(file=sys.stderr)
    if not console.is_interactive or not logger.isEnabledFor(logging.INFO):
        yield LogView()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield BarView(progress)


@contextlib.asynccontextmanager
async def shown(current: Callable[[], Tally], shower: View) -> AsyncIterator[None]:
    """Show the tally regularly for the length of the block."""

    async def keep_showing() -> None:
        while True:
            await asyncio.sleep(shower.interval_s)
            shower.show(current())

    task = asyncio.create_task(keep_showing())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
