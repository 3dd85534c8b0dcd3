"""The tables of a synthetic data set, with ratings in batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from foundation.errors import ConfigError
from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS
from ingest.config import SyntheticConfig
from ingest.sources.synthetic.choices import Choices, Habits, Shelves
from ingest.sources.synthetic.world import (
    FIRST_TIME,
    GENRES,
    LAST_TIME,
    MONTH_S,
    Ints,
    World,
    plant,
    rng_for,
)

_TAGS: Final = ("classic", "funny", "overrated", "rewatchable", "slow", "surprising", "visually")
_RATINGS_AT_A_TIME: Final = 500_000
_FEWEST_PER_USER: Final = 20


@dataclass
class NoiseFloor:
    """Error of the true, noiseless prediction on the ratings; a running sum."""

    squares: float = 0.0
    count: int = 0

    @property
    def rmse(self) -> float:
        """Stars."""
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0


@dataclass
class SyntheticData:
    """The tables of one synthetic data set; ratings are generated in batches to bound memory."""

    config: SyntheticConfig
    world: World
    noise_floor: NoiseFloor = field(default_factory=NoiseFloor)
    """Complete once ``rating_batches`` is exhausted."""

    @classmethod
    def generate(cls, config: SyntheticConfig) -> SyntheticData:
        """Draw the true model.

        Raises:
            ConfigError: if there are fewer (user, movie) pairs than the requested ratings.
        """
        pairs = config.num_users * config.num_movies
        if config.num_ratings > pairs:
            raise ConfigError(
                f"data.synthetic.num_ratings = {config.num_ratings} is more than the {pairs} pairs "
                f"of {config.num_users} users and {config.num_movies} movies"
            )
        return cls(config, plant(config))

    def movies(self) -> pa.Table:
        """The movies table."""
        world = self.world
        genres = [[GENRES[g] for g in np.flatnonzero(row)] for row in world.genres]
        columns = [
            pa.array(world.movie_ids),
            pa.array(world.titles, pa.string()),
            pa.array(world.years.astype(np.int16)),
            pa.array(genres, pa.list_(pa.string())),
        ]
        return pa.table(columns, schema=MOVIES)

    def links(self, tmdb_ids: list[int | None], imdb_ids: list[str]) -> pa.Table:
        """The links table, with the ids that ``ingest.loopback`` serves."""
        columns = [
            pa.array(self.world.movie_ids),
            pa.array(imdb_ids, pa.string()),
            pa.array(tmdb_ids, pa.int64()),
        ]
        return pa.table(columns, schema=LINKS)

    def tags(self) -> pa.Table:
        """A few tags."""
        rng = rng_for(self.config, "tags")
        count = max(1, self.config.num_ratings // 100)
        columns = [
            pa.array(rng.integers(1, self.config.num_users + 1, count)),
            pa.array(rng.choice(self.world.movie_ids, count)),
            pa.array(rng.choice(np.array(_TAGS), count).tolist(), pa.string()),
            pa.array(rng.integers(FIRST_TIME, LAST_TIME, count)),
        ]
        return pa.table(columns, schema=TAGS)

    def rating_batches(self) -> Iterator[pa.RecordBatch]:
        """The ratings by user and movie, about half a million at a time."""
        self.noise_floor = NoiseFloor()
        row = 0
        for number, counts, choices in self.chunks():
            rng = rng_for(self.config, f"ratings {number}")
            owners, movies, sessions = choices.draw(rng, counts)
            released = self.world.available[movies] * MONTH_S
            times = choices.habits.times(rng, sessions, released)
            batch = self._rate(rng, choices.users[owners], movies, times, row)
            row += batch.num_rows
            yield batch

    def chunks(self) -> Iterator[tuple[int, Ints, Choices]]:
        """Chunks of users: number, ratings of each user, and how they choose."""
        counts = _ratings_per_user(self.config)
        shelves = Shelves.of(self.world)
        chunks = np.cumsum(counts) // _RATINGS_AT_A_TIME
        for chunk in np.unique(chunks).tolist():
            users = np.flatnonzero(chunks == chunk)
            rng = rng_for(self.config, f"habits {chunk}")
            habits = Habits.of(rng, self.world, shelves, users, counts[users])
            yield chunk, counts[users], Choices(self.world, shelves, habits, users)

    def _rate(
        self, rng: np.random.Generator, users: Ints, movies: Ints, times: Ints, row: int
    ) -> pa.RecordBatch:
        """Ratings of the given pairs."""
        truth = np.clip(self.world.true_ratings(users, movies, times), 0.5, 5.0)
        noisy = truth + rng.normal(0.0, self.config.noise, len(truth))
        stars = np.clip(np.round(noisy * 2) / 2, 0.5, 5.0)
        self.noise_floor.squares += float(np.square(stars - truth).sum())
        self.noise_floor.count += len(truth)
        columns = [
            pa.array(np.arange(row, row + len(users))),
            pa.array(users + 1),
            pa.array(self.world.movie_ids[movies]),
            pa.array(stars.astype(np.float32)),
            pa.array(times),
        ]
        return pa.record_batch(columns, schema=RATINGS)


def _ratings_per_user(config: SyntheticConfig) -> Ints:
    """A long-tailed number of ratings for each user, with the configured sum."""
    rng = rng_for(config, "activity")
    activity = rng.lognormal(0.0, 1.0, config.num_users)
    fewest = min(_FEWEST_PER_USER, config.num_ratings // config.num_users, config.num_movies)
    # Nobody rates most of the movies, unless so many ratings are asked for.
    mean = config.num_ratings / config.num_users
    most = min(max(config.num_movies // 2, math.ceil(2 * mean)), config.num_movies)
    counts = np.full(config.num_users, fewest, np.int64)
    while (rest := config.num_ratings - int(counts.sum())) > 0:
        # What exceeds it goes to other users.
        room = most - counts
        share = np.where(room > 0, activity, 0.0)
        counts += np.minimum(rng.multinomial(rest, share / share.sum()), room)
    return counts
