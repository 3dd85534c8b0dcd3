"""Find a movie by its title."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from foundation.errors import shortened
from ncf.data.preprocessor import MovieTable
from ncf.errors import UnknownIdError

MAX_NAMED = 5
"""Maximum number of movies named in a message."""
_LONGEST = 1_000
"""Characters of a title that are compared."""


def find_title(table: MovieTable, title: str) -> int:
    """The id of the movie with this title, with or without its year; case is ignored.

    Raises:
        UnknownIdError: if there is none, with similar titles, or if there are several.
    """
    shown = shortened(repr(title))
    wanted = title.strip().casefold()[:_LONGEST]
    titles = [each.casefold() for each in table.titles]
    positions = _positions(titles, wanted)
    if len(positions) == 1:
        return int(table.ids[positions[0]])
    close = positions or [
        titles.index(each) for each in difflib.get_close_matches(wanted, titles, MAX_NAMED)
    ]
    named = "; ".join(f"{table.titles[i]!r} ({table.ids[i]})" for i in close)
    if positions:
        raise UnknownIdError(f"{len(positions)} movies have the title {shown}: {named}")
    hint = f"Did you mean {named}?" if named else "No title comes close to it."
    raise UnknownIdError(f"no movie has the title {shown}. {hint}")


def _positions(titles: Sequence[str], wanted: str) -> list[int]:
    """Positions of the title, or else of titles that are the same apart from their year."""
    same = [i for i, each in enumerate(titles) if each == wanted]
    if same or not wanted:  # the part before a missing year is empty as well
        return same
    return [i for i, each in enumerate(titles) if each.rpartition(" (")[0] == wanted]
