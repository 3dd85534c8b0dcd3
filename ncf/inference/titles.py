"""Search movies by their titles, and find the one movie that a title means."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz, process

from foundation.errors import shortened
from ncf.data.preprocessor import MovieTable
from ncf.data.titles import plain, without_year, year
from ncf.errors import UnknownIdError

MAX_NAMED = 5
"""Maximum number of movies named in a message."""
_LONGEST: Final = 1_000
"""Characters of a query that are compared."""
_ARTICLES: Final = frozenset({"the", "a", "an"})
_NUMERALS: Final = {"ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8"}
_ALIKE: Final = 75.0
"""Minimum similarity of spelling, of 100."""
_PART: Final = 0.9
"""Weight of the similarity to a part of a title, relative to that to a whole one."""
_SHORTEST_PART: Final = 3
"""Letters of a query that is looked for inside words, or as initials."""
_TITLE, _OTHER_TITLE, _WORDS, _INSIDE = range(4)


class Match(NamedTuple):
    """A movie found by a search."""

    position: int
    """Position in the movie table."""
    close: bool
    """Whether the title only has a similar spelling and does not contain the query."""


class TitleSearch:
    """Search titles by the beginnings of their words, and by similar spelling if none matches.

    Words match in any order, so "the matrix" finds "Matrix, The (1999)"; case, accents, punctuation
    and leading English articles are ignored. A word that begins no word of any title may be the
    initials of a title: "lotr 2001". Roman numerals equal numbers.
    """

    def __init__(self, movies: MovieTable) -> None:
        self._movies = movies
        titles = movies.display_titles
        years = [year(title) for title in titles]
        self._short = [_without_article(plain(without_year(title))) for title in titles]
        self._lengths = np.array([len(name) for name in self._short])
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._titles: dict[str, list[int]] = defaultdict(list)
        self._others: dict[str, list[int]] = defaultdict(list)
        words, initials = [], []
        for i, title in enumerate(titles):
            for written in {title.casefold(), movies.titles[i].casefold()}:
                self._exact[written].append(i)
            first, *others = _names(title)
            for names, found in ((first, self._titles), *((name, self._others) for name in others)):
                for key in {_key(names), _key(f"{names} {years[i]}")} - {""}:
                    found[key].append(i)
            words.append([form for word in plain(title).split() for form in _forms(word)])
            initials.append([_initials(name) for name in (first, *others)])
        self._words, self._initials = Beginnings(words), Beginnings(initials)
        # One text of all titles, so that one search covers all of them.
        lines = [f" {plain(title)}\n" for title in titles]
        self._text = "".join(lines)
        self._ends = np.cumsum([len(line) for line in lines])

    def find(self, query: str, limit: int) -> list[Match]:
        """Find at most ``limit`` movies, best first.

        Titles that equal the query except for their year and article come first, then other titles
        of a movie that do, then titles with words that begin with all of the query's words, then
        titles that contain it anywhere, each with the most often rated first. If there are none,
        titles with a similar spelling, closest first.
        """
        wanted = plain(query[:_LONGEST])
        if not wanted:
            return []
        positions, _ = self._ranked(wanted)
        if len(positions):
            return [Match(i, close=False) for i in positions[:limit].tolist()]
        return [Match(i, close=True) for i in self._spelt_like(wanted, limit)]

    def one(self, title: str) -> int:
        """The position of the movie that the title means.

        That is the one with exactly this title, or else with this title apart from year and
        article, or else with it as another title, or else with all of its words as whole ones.

        Raises:
            UnknownIdError: if there is none, with similar titles, or if there are several.
        """
        shown = shortened(repr(title))
        if len(same := self._exact.get(title.strip().casefold(), [])) == 1:
            return same[0]
        wanted = plain(title[:_LONGEST])
        positions, ranks = self._ranked(wanted) if wanted else (np.array(same, np.int64), None)
        if ranks is not None and len(ranks) and ranks[0] < _INSIDE:
            positions = positions[ranks == ranks[0]]
            if ranks[0] == _WORDS:
                # The beginning of a word is enough to be shown, too little to be meant.
                has_all = self._with_all(wanted.split(), whole=True)
                whole = positions[has_all[positions]]
                if not len(whole):
                    raise self._unknown(shown, positions)
                positions = whole
            if len(positions) == 1:
                return int(positions[0])
            several = "have the title" if ranks[0] < _WORDS else "have the words of the title"
            raise UnknownIdError(
                f"{len(positions):,} movies {several} {shown}: {self._named(positions)}"
            )
        if not len(positions) and wanted:
            positions = np.array(self._spelt_like(wanted, MAX_NAMED), np.int64)
        raise self._unknown(shown, positions)

    def _unknown(self, shown: str, positions: npt.NDArray[np.int64]) -> UnknownIdError:
        hint = f"Did you mean {self._named(positions)}?" if len(positions) else ""
        return UnknownIdError(
            f"no movie has the title {shown}. {hint or 'No title comes close to it.'}"
        )

    def _named(self, positions: npt.NDArray[np.int64]) -> str:
        titles, ids = self._movies.display_titles, self._movies.ids
        named = "; ".join(f"{titles[i]!r} ({ids[i]})" for i in positions[:MAX_NAMED].tolist())
        return named if len(positions) <= MAX_NAMED else f"{named}; ..."

    def _ranked(self, wanted: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]:
        """Positions that match, best first, and how well."""
        ranks = np.full(len(self._short), _INSIDE + 1, np.int8)
        if len(wanted) >= _SHORTEST_PART:
            ranks[list(self._containing(wanted))] = _INSIDE
        ranks[self._with_all(wanted.split())] = _WORDS
        key = _key(wanted)
        ranks[self._others.get(key, [])] = _OTHER_TITLE
        ranks[self._titles.get(key, [])] = _TITLE
        matching = np.flatnonzero(ranks <= _INSIDE)
        order = np.lexsort((matching, -self._movies.train_counts[matching], ranks[matching]))
        return matching[order], ranks[matching[order]]

    def _with_all(self, words: list[str], *, whole: bool = False) -> npt.NDArray[np.bool_]:
        """``[M]`` which titles have all the words, or words that begin so."""
        has_all = np.ones(len(self._short), bool)
        for word in words:
            has_word = np.zeros(len(self._short), bool)
            forms = [self._words.of(form, whole=whole) for form in _forms(word)]
            with_word = np.concatenate(forms)
            if not len(with_word) and len(word) >= _SHORTEST_PART:
                with_word = self._initials.of(word)
            has_word[with_word] = True
            has_all &= has_word
        return has_all

    def _containing(self, wanted: str) -> Iterator[int]:
        found = self._text.find(wanted)
        while found >= 0:
            line = int(np.searchsorted(self._ends, found, side="right"))
            yield line
            found = self._text.find(wanted, int(self._ends[line]))

    def _spelt_like(self, wanted: str, limit: int) -> list[int]:
        wanted = _without_article(re.sub(r" \d{4}$", "", wanted))
        (whole,) = process.cdist([wanted], self._short, scorer=fuzz.ratio)
        (part,) = process.cdist([wanted], self._short, scorer=fuzz.partial_ratio)
        # A short title is a part of many queries, which says nothing.
        similarity = np.maximum(whole, np.where(self._lengths > len(wanted), _PART * part, 0.0))
        order = np.lexsort((-self._movies.train_counts, -similarity))[:limit]
        return order[similarity[order] >= _ALIKE].tolist()


class Beginnings:
    """Positions of lists of words, by the beginning of a word."""

    def __init__(self, lists: list[list[str]]) -> None:
        found: dict[str, list[int]] = defaultdict(list)
        for i, words in enumerate(lists):
            for word in words:
                found[word].append(i)
        self._sorted = sorted(found)
        self._positions = np.array([i for word in self._sorted for i in found[word]], np.int64)
        self._starts = np.cumsum([0, *(len(found[word]) for word in self._sorted)])

    def of(self, beginning: str, *, whole: bool = False) -> npt.NDArray[np.int64]:
        """Positions of lists with a word that begins so, or is that, in any order, maybe repeated.

        A number is no beginning of another one.
        """
        first = bisect_left(self._sorted, beginning)
        after = "\0" if whole or beginning.isdecimal() else "\U0010ffff"
        last = bisect_left(self._sorted, f"{beginning}{after}")
        return self._positions[self._starts[first] : self._starts[last]]


def _names(title: str) -> list[str]:
    """The title without what is in parentheses, then what each pair of them contains."""
    short = without_year(title)
    inside = [name.removeprefix("a.k.a. ") for name in re.findall(r"\(([^()]+)\)", short)]
    return [plain(name) for name in (re.sub(r"\([^()]*\)", " ", short), *inside)]


def _key(name: str) -> str:
    """Equal for names of the same words in any order, apart from a leading article."""
    return " ".join(sorted(_NUMERALS.get(word, word) for word in _without_article(name).split()))


def _forms(word: str) -> tuple[str, ...]:
    return (word, _NUMERALS[word]) if word in _NUMERALS else (word,)


def _without_article(name: str) -> str:
    first, _, rest = name.partition(" ")
    return rest if rest and first in _ARTICLES else name


def _initials(name: str) -> str:
    return "".join(word[0] for word in _without_article(name).split())
