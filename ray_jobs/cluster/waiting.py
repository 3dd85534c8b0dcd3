"""Lines that say what a job waits for, and since when."""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import Final

_SECONDS_QUIET: Final = 10.0
"""How long a job waits before it says so."""

_SECONDS_BETWEEN_LINES: Final = 60.0

logger: Final = logging.getLogger(__name__)


class Waiting:
    """Says that a job waits for the cluster: after a while, and every minute."""

    def __init__(self) -> None:
        self._since: datetime | None = None
        self._told = 0.0

    def update(self, what: str, *, is_over: bool) -> None:
        """Called again and again.

        Args:
            what: it waits for.
            is_over: whether it does not wait.
        """
        now = time.monotonic()
        if is_over:
            self._since = None
        elif self._since is None:
            self._since, self._told = datetime.now(), now - _SECONDS_BETWEEN_LINES + _SECONDS_QUIET
        elif now - self._told >= _SECONDS_BETWEEN_LINES:
            logger.info("   waiting since %s for %s", f"{self._since:%H:%M:%S}", what)
            self._told = now
