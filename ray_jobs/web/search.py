"""Search movies by words of their titles."""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import Final, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from ncf.data.preprocessor import MovieTable

_ALIKE: Final = 0.4
"""Minimum similarity of letters for a title with another spelling."""
_COMPARED: Final = 50
"""Number of titles with the most similar letters whose spelling is then compared."""


class Match(NamedTuple):
    """A movie found by a search."""

    position: int
    """Position in the movie table."""
    close: bool
    """Whether the title only has a similar spelling and does not contain the query."""


class TitleSearch:
    """Search titles by the beginnings of their words, and by similar spelling if none matches.

    Words match in any order, so "the matrix" finds "Matrix, The (1999)"; case, accents and
    punctuation are ignored.
    """

    def __init__(self, movies: MovieTable) -> None:
        self._names = [f" {plain(title)}" for title in movies.titles]
        self._short = [re.sub(r" \d{4}$", "", name) for name in self._names]
        self._words = [sorted(name.split()) for name in self._short]
        self._counts = movies.train_counts
        # Cosine similarity of letter 2- and 3-grams, weighted by inverse document frequency. One
        # more row, because scikit-learn refuses a catalogue without letters.
        self._letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), dtype=np.float32)
        self._spellings = self._letters.fit_transform([*self._short, " ?"])[:-1]

    def find(self, query: str, limit: int) -> list[Match]:
        """Find at most ``limit`` movies, best first.

        Titles that equal the query except for their year come first, then titles with words that
        begin with all of the query's words, then titles that contain it anywhere, each with the
        most often rated first. If there are none, titles with a similar spelling, closest first.
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
    """Lower case without accents and punctuation, words separated by one space."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join(re.findall(r"\w+", "".join(c for c in letters if not unicodedata.combining(c))))
