"""TMDb-shaped records of the movies of a synthetic data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.sources.synthetic.data import SyntheticData
from ingest.sources.synthetic.world import GENRES, QUALITY_STD, Floats, Ints, World, rng_for


@dataclass(frozen=True)
class SyntheticTmdb:
    """TMDb-shaped records, with gaps such as TMDb's.

    One movie in fifty is served under another id than its link, so that only its IMDb id leads to
    it; one in a hundred has no TMDb id; one in a hundred is unknown. Two movies share an id.
    """

    tmdb_ids: list[int | None]
    imdb_ids: list[str]
    movies: dict[int, dict[str, Any]]
    """Answers by TMDb id."""
    by_imdb_id: dict[str, int]

    @classmethod
    def of(cls, data: SyntheticData) -> SyntheticTmdb:
        """The records of ``data``'s movies."""
        count = data.config.num_movies
        numbers = _Numbers.of(data)
        imdb_ids = [f"tt{1_000_000 + i:07d}" for i in range(count)]
        tmdb_ids: list[int | None] = [100 + 7 * i for i in range(count)]
        if count >= 20:
            tmdb_ids[-1] = tmdb_ids[-2]
        movies: dict[int, dict[str, Any]] = {}
        by_imdb_id: dict[str, int] = {}
        for i in range(count):
            served = 100 + 7 * i
            if i % 50 == 10:
                served += 1_000_000
            if i % 100 == 30:
                tmdb_ids[i] = None
            if i % 100 == 60:
                continue
            movies[served] = numbers.answer(data.world, i, served, imdb_ids[i])
            by_imdb_id[imdb_ids[i]] = served
        return cls(tmdb_ids, imdb_ids, movies, by_imdb_id)


@dataclass(frozen=True)
class _Numbers:
    """The numbers in the records: noisy views of quality and popularity."""

    vote_average: Floats
    vote_count: Ints
    popularity: Floats
    budget: Ints
    revenue: Ints
    runtime: Ints

    @classmethod
    def of(cls, data: SyntheticData) -> _Numbers:
        rng = rng_for(data.config, "tmdb")
        world, count = data.world, data.config.num_movies
        quality = world.quality / QUALITY_STD
        votes = np.exp(5.5 + 1.2 * world.log_popularity + 0.3 * rng.normal(size=count))
        votes = np.where(rng.random(count) < 0.01, 0, votes).astype(np.int64)
        average = np.clip(6.4 + 0.8 * quality + 0.35 * rng.normal(size=count), 1, 10)
        budget = np.exp(16.5 + 1.3 * world.scale + 0.6 * rng.normal(size=count))
        revenue = budget * np.exp(0.6 + 0.5 * quality + 0.7 * rng.normal(size=count))
        return cls(
            vote_average=np.where(votes > 0, np.round(average, 3), 0.0),
            vote_count=votes,
            popularity=np.round(np.exp(2.0 + 0.8 * world.log_popularity), 3).astype(np.float64),
            budget=np.where(rng.random(count) < 0.35, 0, budget).astype(np.int64),
            revenue=np.where(rng.random(count) < 0.3, 0, revenue).astype(np.int64),
            runtime=np.where(rng.random(count) < 0.02, 0, rng.normal(105, 18, count)).astype(
                np.int64
            ),
        )

    def answer(self, world: World, i: int, tmdb_id: int, imdb_id: str) -> dict[str, Any]:
        """TMDb's answer for the movie at position ``i``."""
        director = int(world.directors[i])
        genres = np.flatnonzero(world.genres[i]).tolist()
        average = float(self.vote_average[i])
        return {
            "id": tmdb_id,
            "imdb_id": imdb_id,
            "title": world.titles[i].rsplit(" (", 1)[0],
            "original_language": "en" if i % 7 else "fr",
            "release_date": "" if i % 97 == 5 else world.release_date(i),
            # JSON does not tell 8 from 8.0, and TMDb sends both.
            "vote_average": int(average) if average.is_integer() else average,
            "vote_count": int(self.vote_count[i]),
            "popularity": float(self.popularity[i]),
            "budget": int(self.budget[i]),
            "revenue": int(self.revenue[i]),
            "runtime": int(self.runtime[i]) or None,
            "genres": [{"id": 1 + g, "name": GENRES[g]} for g in genres],
            "belongs_to_collection": (
                {"id": 1 + director, "name": f"Collection {director}"} if i % 11 == 0 else None
            ),
            "credits": {
                "cast": [
                    {
                        "id": 50_000 + (7 * i + k) % 900,
                        "name": f"Actor {(7 * i + k) % 900}",
                        "order": k,
                    }
                    for k in range(5)
                ],
                "crew": [{"id": director, "name": f"Director {director}", "job": "Director"}],
            },
            "keywords": {
                "keywords": [
                    {"id": 1 + 10 * g + i % 5, "name": f"{GENRES[g].lower()} {i % 5}"}
                    for g in genres
                ]
            },
        }
