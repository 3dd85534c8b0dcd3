"""Titles as they are shown and as they are compared."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_ARTICLES: Final = (
    "The|A|An|La|Le|Les|L'|Un|Une|Il|Lo|I|Gli|Una|El|Los|Las|Der|Die|Das|Ein|Eine|De|Het|Det|Den|En"
)
_ENGLISH: Final = ("The", "A", "An")
_TRAILING: Final = re.compile(rf"(\s*(?:a\.k\.a\. )?)(\S.*), ({_ARTICLES})(\s*)")
_WORD: Final = re.compile(r"\w+")
_YEAR: Final = re.compile(r"\s*\((\d{4})\)\s*$")


def display_title(title: str) -> str:
    """The title with its article in front: "Matrix, The (1999)" is shown as The Matrix (1999).

    So are other titles of the movie in parentheses.
    """
    if ", " not in title:
        return title
    return "".join(_with_leading_article(part) for part in re.split(r"([()])", title))


def _with_leading_article(part: str) -> str:
    found = _TRAILING.fullmatch(part)
    if found is None:
        return part
    before, name, article, after = found.groups()
    if ", " in name and article not in _ENGLISH:
        return part  # "Me, Myself, I" is a list
    space = "" if article.endswith("'") else " "
    return f"{before}{article}{space}{name}{after}"


def without_year(title: str) -> str:
    """The title without the year in parentheses at its end."""
    return _YEAR.sub("", title)


def year(title: str) -> str:
    """The year in parentheses at the end of the title, or nothing."""
    found = _YEAR.search(title)
    return found[1] if found else ""


def plain(text: str) -> str:
    """Lower case without accents and punctuation, words separated by one space."""
    letters = text.casefold()
    if not letters.isascii():
        decomposed = unicodedata.normalize("NFKD", letters)
        letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(_WORD.findall(letters))
