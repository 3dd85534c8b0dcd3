"""The year of a movie, from its title."""

from __future__ import annotations

import re
from typing import Final

from foundation.times import is_film_year

_END: Final = 500
"""Characters at the end of a title that are searched."""
_TRIED: Final = 5
"""Years in brackets at the end of a title that are looked at."""

# "(1995)", "(1975-1979)" and "(2007-)" of series, "(1995/II)" as in IMDb.
_YEAR: Final = re.compile(r"\(\s*(\d{4})\s*(?:[-–—/][^()]*)?\)")
# What may follow it: "(V)", "(TV)", "(Video)" and other remarks in brackets.
_AFTER: Final = re.compile(r"(?:\s*(?:\([^()]*\)|\[[^\[\]]*\]))*\s*")


def title_year(title: str) -> int | None:
    """The year in the brackets at the end of a title: 1995 for ``Toy Story (1995)``.

    The last year in brackets counts, if nothing but remarks in brackets follows; of a span it is
    the first. Years in which there can be no film count as unknown.
    """
    end = title[-_END:]
    for found in list(_YEAR.finditer(end))[: -_TRIED - 1 : -1]:
        if not _AFTER.fullmatch(end, found.end()):
            return None
        if is_film_year(int(found[1])):
            return int(found[1])
    return None


def plausible_year(text: str) -> int | None:
    """The year in a text such as ``1995`` or ``1995.0``, or at the beginning of a date."""
    found = re.match(r"\s*(\d{4})(?=\s*$|\.0|-\d)", text)
    return int(found[1]) if found and is_film_year(int(found[1])) else None


def date_year(text: str) -> int | None:
    """The year in a date such as ``01-Jan-1995``."""
    found = re.fullmatch(r"\s*\d{1,2}-[A-Za-z]{3}-(\d{4})\s*", text)
    return int(found[1]) if found and is_film_year(int(found[1])) else None
