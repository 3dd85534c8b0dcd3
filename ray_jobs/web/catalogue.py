"""The movies of the page: the most rated ones, and searches by title, person and genre."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Final

import numpy as np
import numpy.typing as npt

from ncf.data.titles import plain, year
from ncf.inference.recommender import Recommender
from ncf.inference.titles import Beginnings
from ray_jobs.web import models

_SHORTEST: Final = 3
"""Letters of a query that is looked for among people and genres."""

Positions = npt.NDArray[np.int64]


class Catalogue:
    """Movies by what users know of them."""

    def __init__(self, recommender: Recommender, people: Mapping[int, Sequence[str]]) -> None:
        """``people``: the names of directors and cast by movie id, as far as they are known."""
        self._recommender = recommender
        self._movies = recommender.preprocessor.movies
        self._genres = recommender.preprocessor.genres
        by_count = np.lexsort((np.arange(len(self._movies)), -self._movies.train_counts))
        self._by_count: Positions = by_count.astype(np.int64)
        self._people = _People(people, self._movies.index_of)

    def popular(self, limit: int, genre: str | None) -> models.FoundMovies:
        """The most often rated movies, of a genre if one is named."""
        of_genre = self._of_genre(genre)
        best = self._by_count[of_genre[self._by_count]][:limit]
        return models.FoundMovies(movies=tuple(map(self._shown, best.tolist())))

    def found(self, query: str, limit: int, genre: str | None) -> models.FoundMovies:
        """Movies by words of their titles, then by people and genres, then by similar spelling."""
        of_genre = self._of_genre(genre)
        by_title = self._recommender.search(query, len(self._movies) if genre else limit)
        titles = [i for i, close in by_title if not close and of_genre[i]]
        matched = self._by_people_and_genres(query)
        others = sorted(matched.keys() - set(titles), key=self._rank)
        rows = [self._shown(i) for i in titles]
        rows += [self._shown(i, matched=matched[i]) for i in others if of_genre[i]]
        if not rows:
            rows = [self._shown(i, close=True) for i, close in by_title if close and of_genre[i]]
        return models.FoundMovies(movies=tuple(rows[:limit]))

    def _by_people_and_genres(self, query: str) -> dict[int, str]:
        """Positions of movies, with the name that matches."""
        wanted = plain(query)
        if len(wanted) < _SHORTEST:
            return {}
        found: dict[int, str] = {}
        for column, genre in enumerate(self._genres):
            if plain(genre).startswith(wanted):
                found |= dict.fromkeys(
                    np.flatnonzero(self._movies.genres[:, column]).tolist(), genre
                )
        return found | self._people.find(wanted)

    def _of_genre(self, genre: str | None) -> npt.NDArray[np.bool_]:
        """``[M]``"""
        if genre is None:
            return np.ones(len(self._movies), bool)
        if genre not in self._genres:
            return np.zeros(len(self._movies), bool)
        return self._movies.genres[:, self._genres.index(genre)]

    def _rank(self, position: int) -> tuple[int, int]:
        return -int(self._movies.train_counts[position]), position

    def _shown(
        self, position: int, *, close: bool = False, matched: str | None = None
    ) -> models.FoundMovie:
        title = self._movies.display_titles[position]
        genres = np.flatnonzero(self._movies.genres[position]).tolist()
        return models.FoundMovie(
            movie_id=int(self._movies.ids[position]),
            title=title,
            year=int(year(title)) if year(title) else None,
            genres=tuple(self._genres[column] for column in genres),
            num_ratings=int(self._movies.train_counts[position]),
            close=close,
            matched=matched,
        )


class _People:
    """Movies by the words of people's names."""

    def __init__(
        self, people: Mapping[int, Sequence[str]], index_of: Callable[[Positions], Positions]
    ) -> None:
        ids = np.array(list(people), np.int64)
        movies_of: dict[str, list[int]] = defaultdict(list)
        for position, names in zip(index_of(ids).tolist(), people.values(), strict=True):
            if position >= 0:
                for name in names:
                    movies_of[name].append(position)
        self._names = tuple(movies_of)
        self._movies = tuple(movies_of.values())
        self._words = Beginnings([plain(name).split() for name in self._names])

    def find(self, wanted: str) -> dict[int, str]:
        """Positions of movies of people with words that begin so, with their names."""
        if not self._names:
            return {}
        of_words = [np.unique(self._words.of(word)) for word in wanted.split()]
        found = reduce(np.intersect1d, of_words)
        return {
            position: self._names[person]
            for person in found.tolist()
            for position in self._movies[person]
        }
