"""How the ingester reports what it is doing."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]


PLAIN_INTERVAL_S = 5.0
