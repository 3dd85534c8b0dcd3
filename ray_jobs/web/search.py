"""Movies by what somebody types of their titles."""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import Final, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from ncf.data.preprocessor import MovieTable

_ALIKE: Final = 0.4
"""Least likeness, by letters, of a title that is spelt otherwise."""
_COMPARED: Final = 50
"""Titles that are most alike by letters, whose spelling is then compared."""


class Match(NamedTuple):
    """A movie that was found."""

    position: int
    """In the movie table."""
    close: bool
    """Whether the query is not in the title, which is only spelt like it."""


class TitleSearch:
    """Titles by the beginnings of their words, or else by their spelling.

    In any order of words, so that "the matrix" finds "Matrix, The (1999)"; case, accents and
    punctuation do not count.
    """

    def __init__(self, movies: MovieTable) -> None:
        self._names = [f" {plain(title)}" for title in movies.titles]
        self._short = [re.sub(r" \d{4}$", "", name) for name in self._names]
        self._words = [sorted(name.split()) for name in self._short]
        self._counts = movies.train_counts
        # Cosines of counts of two and three letters in a row, those that many titles have counting
        # less. There is a row more, as a catalogue of no letters at all would be refused.
        self._letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), dtype=np.float32)
        self._spellings = self._letters.fit_transform([*self._short, " ?"])[:-1]

    def find(self, query: str, limit: int) -> list[Match]:
        """At most ``limit``, the best first.

        Titles that are the query but for their year, then those with words that begin with all of
        the query's words, then those that hold it anywhere, each with the most often rated first.
        If there is none, those spelt like it, the most alike first.
        """
        wanted = plain(query)
        if not wanted:
            return []
        ranks = self._ranks(wanted)
        if not ranks:
            return [Match(i, close=True) for i in self._spelt_like(wanted)[:limit]]
        order = sorted(ranks, key=lambda i: (ranks[i], -self._counts[i], i))
        return [Match(i, close=False) for i in order[:limit]]

    def _ranks(self, wanted: str) -> dict[int, int]:
        words = sorted(wanted.split())
        beginnings = [f" {word}" for word in words]
        ranks = {}
        for i, name in enumerate(self._names):
            if all(beginning in name for beginning in beginnings):
                ranks[i] = 0 if self._words[i] == words or name[1:] == wanted else 1
            elif wanted in name:
                ranks[i] = 2
        return ranks

    def _spelt_like(self, wanted: str) -> list[int]:
        similarity = (self._spellings @ self._letters.transform([f" {wanted}"]).T).toarray()[:, 0]
        nearest = np.argsort(-similarity, kind="stable")[:_COMPARED]
        comparison = difflib.SequenceMatcher(b=wanted)
        ratios = {}
        for i in nearest[similarity[nearest] >= _ALIKE].tolist():
            comparison.set_seq1(self._short[i][1:])
            ratios[i] = comparison.ratio()
        return sorted(ratios, key=lambda i: -ratios[i])


def plain(text: str) -> str:
    """Lower case without accents and punctuation, words apart by one space."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join(re.findall(r"\w+", "".join(c for c in letters if not unicodedata.combining(c))))
