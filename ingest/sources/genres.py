"""The genres in a field of a file of movies."""

from __future__ import annotations

import ast
import json
import re
import sys
from typing import Final, Literal

NONE: Final = frozenset(
    {"", "(no genres listed)", "no genres listed", "(none)", "none", "null", "nan", "n/a", "na",
     "unknown", "-", "--", "?", r"\n", "[]", "{}", "undefined", "not available"}
)  # fmt: skip
"""Texts, in lower case, that mean that no genre is known."""

_SEPARATORS: Final = re.compile(r"[|;,/\t]")
_LONGEST: Final = 100
"""Characters of a genre's name; longer texts are none."""

Notation = Literal["usual", "other", "unreadable"]


def split_genres(text: str) -> tuple[tuple[str, ...], Notation]:
    """The genres in ``text``, each once, and in which notation they are.

    The usual one is that of the releases, ``Comedy|Drama``. Commas, semicolons and slashes separate
    too, and lists are read as Python and JSON write them: ``['Comedy', 'Drama']``.
    """
    names, notation = _parts(text.strip())
    if any(len(name) > _LONGEST for name in names):
        return (), "unreadable"
    # Interned, because few names are shared by all movies.
    cleaned = (sys.intern(" ".join(name.split())) for name in names)
    return tuple(dict.fromkeys(name for name in cleaned if name.lower() not in NONE)), notation


def _parts(text: str) -> tuple[list[str], Notation]:
    if text.lower() in NONE:
        return [], "usual"
    if text[0] in "[{":
        listed = _list(text)
        return (listed, "other") if listed is not None else ([], "unreadable")
    parts = [part.strip(" '\"") for part in _SEPARATORS.split(text)]
    return parts, "usual" if len(parts) == text.count("|") + 1 else "other"


def _list(text: str) -> list[str] | None:
    """The texts of a list, or the ``name`` of its objects, as TMDb has them; None if it is none."""
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if not isinstance(found, list | tuple | set):
            return None
        items = [item.get("name") if isinstance(item, dict) else item for item in found]
        names = [item for item in items if isinstance(item, str)]
        return names if len(names) == len(items) else None
    bare = re.fullmatch(r"\[([\w\s,&-]*)\]", text)  # [Action, Drama]
    return bare[1].split(",") if bare else None
