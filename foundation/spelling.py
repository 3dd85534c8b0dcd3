"""The valid word closest to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that ``word`` is most likely a misspelling of; None if none is close."""
    return next(iter(difflib.get_close_matches(word, list(valid), n=1)), None)
