"""The genres in a field of a file of movies."""

from __future__ import annotations

import ast
import re
import sys
from typing import Final

NONE: Final = frozenset(
    {"", "(no genres listed)", "no genres listed", "(none)", "none", "null", "nan", "n/a", "na",
     "unknown", "-", "--", "?", r"\n", "[]", "{}", "undefined", "not available"}
)  # fmt: skip
"""Texts, in lower case, that mean that no genre is known."""

_OTHER_SEPARATORS: Final = re.compile(r"[;,/\t]")


def split_genres(text: str) -> tuple[tuple[str, ...], bool]:
    """The genres in ``text``, each once, and whether they were separated in the releases' notation.

    That is ``Comedy|Drama``. Commas, semicolons and slashes are taken as separators too, and so are
    lists as Python and JSON write them: ``['Comedy', 'Drama']``.
    """
    text = text.strip()
    names, is_usual = _parts(text)
    # Interned, because few names are shared by all movies.
    cleaned = (sys.intern(" ".join(name.split())) for name in names)
    return tuple(dict.fromkeys(name for name in cleaned if name.lower() not in NONE)), is_usual


def _parts(text: str) -> tuple[list[str], bool]:
    if text.lower() in NONE or "|" in text:
        return text.split("|"), True
    if text.startswith("[") and text.endswith("]"):
        listed = _list(text)
        if listed is not None:
            return listed, False
        text = text[1:-1]
    parts = [part.strip(" '\"") for part in _OTHER_SEPARATORS.split(text)]
    return parts, len(parts) == 1


def _list(text: str) -> list[str] | None:
    """The texts of a list, or the ``name`` of its objects, as TMDb has them; None if it is none."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    items = [item.get("name") if isinstance(item, dict) else item for item in found]
    names = [item for item in items if isinstance(item, str)]
    return names if len(names) == len(items) else None
