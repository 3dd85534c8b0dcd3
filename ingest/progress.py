"""How often long operations report their progress."""

from __future__ import annotations

from typing import Final

LOG_INTERVAL_S: Final = 5.0
"""Seconds between two lines on the same download or crawl."""
