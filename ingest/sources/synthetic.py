"""A generated, MovieLens-shaped data set whose true model is known.

A rating is ``mean + user bias + movie quality + taste + drift + noise``, rounded to half stars and
clipped to 0.5..5:

- quality depends on the movie's genres, decade and director; TMDb's numbers are noisy views of it;
- taste is the product of user and movie factors; a movie's factors depend mostly on its genres;
- drift is a linear trend over the years, with a slope for each user.

So a model of users and movies beats their means, a model with genres, people and numbers is better
still on rarely rated movies, and no model can beat the noise floor in ``dataset.json``. The seed
determines everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from foundation.errors import ConfigError
from foundation.schemas import LINKS, MOVIES, RATINGS, TAGS
from foundation.storage import Storage
from ingest.config import DataConfig, SyntheticConfig
from ingest.registry import SYNTHETIC
from ingest.sources.base import Source, TmdbRecords, Written
from ingest.sources.tables import Tables

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SYNTHETIC_NOTICE: Final = (
    "THIS IS SYNTHETIC DATA, not MovieLens: every user, movie and rating is made up, and figures "
    "measured on it say nothing about real recommendations."
)

GENERATOR_VERSION: Final = 1
"""Incremented whenever the same configuration gives different data."""

GENRES: Final = (
    "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War",
    "Western",
)  # fmt: skip
_ADJECTIVES: Final = (
    "Silent", "Crimson", "Distant", "Broken", "Golden", "Hidden", "Last", "Lonely", "Midnight",
    "Northern", "Paper", "Quiet", "Restless", "Second", "Seven", "Stolen", "Tender", "Wild",
)  # fmt: skip
_NOUNS: Final = (
    "Bridge", "Circus", "Dream", "Empire", "Garden", "Harbor", "Horizon", "Island", "Letter",
    "Mirror", "Mountain", "Orchard", "Promise", "River", "Shadow", "Summer", "Train", "Witness",
)  # fmt: skip
_TAGS: Final = ("classic", "funny", "overrated", "rewatchable", "slow", "surprising", "visually")

_MEAN: Final = 3.5
_USER_STD: Final = 0.4
_QUALITY_STD: Final = 0.45
_TASTE_STD: Final = 0.55
_DRIFT_STD: Final = 0.5  # stars over the whole period, per user
_TREND: Final = -0.2  # stars over the whole period, for all
_RANK: Final = 4
_FIRST_TIME: Final = 828_000_000  # March 1996
_LAST_TIME: Final = 1_537_800_000  # September 2018
_RATINGS_AT_A_TIME: Final = 500_000
_FEWEST_PER_USER: Final = 20


@dataclass(frozen=True)
class World:
    """The true model: one entry for each movie or user, in order of id."""

    movie_ids: Ints
    titles: list[str]
    years: Ints
    genres: npt.NDArray[np.bool_]  # movies x GENRES
    directors: Ints
    quality: Floats  # stars above the mean
    log_popularity: Floats
    movie_factors: Floats
    user_bias: Floats
    user_factors: Floats
    user_slope: Floats


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
        return cls(config, _plant(config))

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
        rng = _rng(self.config, "tags")
        count = max(1, self.config.num_ratings // 100)
        columns = [
            pa.array(rng.integers(1, self.config.num_users + 1, count)),
            pa.array(rng.choice(self.world.movie_ids, count)),
            pa.array(rng.choice(np.array(_TAGS), count).tolist(), pa.string()),
            pa.array(rng.integers(_FIRST_TIME, _LAST_TIME, count)),
        ]
        return pa.table(columns, schema=TAGS)

    def rating_batches(self) -> Iterator[pa.RecordBatch]:
        """The ratings by user and movie, about half a million at a time."""
        self.noise_floor = NoiseFloor()
        counts = _ratings_per_user(self.config)
        popularity = np.exp(self.world.log_popularity)
        chunks = np.cumsum(counts) // _RATINGS_AT_A_TIME
        row = 0
        for chunk in np.unique(chunks):
            users = np.flatnonzero(chunks == chunk)
            rng = _rng(self.config, f"ratings {chunk}")
            owner, movies = draw_pairs(rng, counts[users], popularity)
            batch = self._rate(rng, users[owner], movies, row)
            row += batch.num_rows
            yield batch

    def _rate(
        self, rng: np.random.Generator, users: Ints, movies: Ints, row: int
    ) -> pa.RecordBatch:
        """Ratings of the given pairs."""
        times = _times(rng, users, self.world.years[movies])
        truth = np.clip(self._predict(users, movies, times), 0.5, 5.0)
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

    def _predict(self, users: Ints, movies: Ints, times: Ints) -> Floats:
        """The true rating without noise, before clipping."""
        world = self.world
        age = (times - _FIRST_TIME) / (_LAST_TIME - _FIRST_TIME) - 0.5
        taste = np.einsum("nk,nk->n", world.user_factors[users], world.movie_factors[movies])
        drift = (_TREND + world.user_slope[users]) * age
        prediction: Floats = _MEAN + world.user_bias[users] + world.quality[movies] + taste + drift
        return prediction


def draw_pairs(rng: np.random.Generator, counts: Ints, popularity: Floats) -> tuple[Ints, Ints]:
    """``counts[u]`` distinct movies for each user ``u``, popular ones more often.

    Returns:
        Positions of users and of movies, sorted by user and movie.
    """
    # Rejection is fast while a user rates a small part of all movies, and very slow near all.
    dense = counts > len(popularity) // 4
    parts = [
        _draw_by_rejection(rng, np.where(dense, 0, counts), popularity),
        _draw_by_ranking(rng, np.where(dense, counts, 0), popularity),
    ]
    keys = np.sort(np.concatenate(parts))
    return keys // len(popularity), keys % len(popularity)


def _draw_by_rejection(rng: np.random.Generator, counts: Ints, popularity: Floats) -> Ints:
    """Keys user * movies + movie: draw with repetition, drop repetitions, draw again."""
    cumulative = np.cumsum(popularity / popularity.sum())
    kept = np.empty(0, np.int64)
    missing = counts
    while missing.any():
        owner = np.repeat(np.arange(len(counts)), missing + missing // 2 + 1 * (missing > 0))
        drawn = np.searchsorted(cumulative, rng.random(len(owner)) * cumulative[-1])
        keys = np.concatenate([kept, owner * len(popularity) + drawn])
        _, first = np.unique(keys, return_index=True)
        kept = keys[np.sort(first)]  # in the order drawn, so that the cut below is random
        kept = kept[np.argsort(kept // len(popularity), kind="stable")]
        owner = kept // len(popularity)
        rank = np.arange(len(kept)) - np.searchsorted(owner, owner)
        kept = kept[rank < counts[owner]]
        missing = counts - np.bincount(kept // len(popularity), minlength=len(counts))
    return kept


def _draw_by_ranking(rng: np.random.Generator, counts: Ints, popularity: Floats) -> Ints:
    """Keys user * movies + movie: the highest of log popularity + Gumbel noise, for each user."""
    users = np.flatnonzero(counts)
    scores = np.log(popularity) + rng.gumbel(size=(len(users), len(popularity)))
    ranking = np.argsort(-scores, axis=1)
    chosen = np.arange(len(popularity)) < counts[users, None]
    keys: Ints = (users[:, None] * len(popularity) + ranking)[chosen]
    return keys


def _rng(config: SyntheticConfig, purpose: str) -> np.random.Generator:
    """A separate generator for each purpose, so that a change in one does not affect others."""
    return np.random.default_rng([config.seed, *purpose.encode()])


def _plant(config: SyntheticConfig) -> World:
    rng = _rng(config, "world")
    movies, users = config.num_movies, config.num_users
    genres = _plant_genres(rng, movies)
    years = np.clip(2017 - rng.exponential(18, movies), 1920, 2017).astype(np.int64)
    directors = np.minimum(rng.geometric(4 / (movies + 4), movies), movies)
    quality = _plant_quality(rng, genres, years, directors)
    genre_factors = rng.normal(size=(len(GENRES), _RANK))
    shared = genres @ genre_factors / np.sqrt(genres.sum(axis=1, keepdims=True))
    factors = 0.9 * shared + 0.45 * rng.normal(size=(movies, _RANK))
    factors *= _TASTE_STD / np.sqrt(np.square(factors).sum(axis=1).mean())
    return World(
        movie_ids=np.cumsum(rng.integers(1, 4, movies)),
        titles=[
            f"The {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)} {number} ({year})"
            for number, year in enumerate(years.tolist(), 1)
        ],
        years=years,
        genres=genres,
        directors=directors,
        quality=quality,
        log_popularity=1.1 * rng.normal(size=movies) + quality,
        movie_factors=factors,
        user_bias=rng.normal(0, _USER_STD, users),
        user_factors=rng.normal(size=(users, _RANK)),
        user_slope=rng.normal(0, _DRIFT_STD, users),
    )


def _plant_genres(rng: np.random.Generator, movies: int) -> npt.NDArray[np.bool_]:
    """One to three genres for each movie, some genres more frequent than others."""
    frequency = np.log(1 / (1 + np.arange(len(GENRES))))[rng.permutation(len(GENRES))]
    ranking = np.argsort(-(frequency + rng.gumbel(size=(movies, len(GENRES)))), axis=1)
    genres = np.zeros((movies, len(GENRES)), bool)
    how_many = rng.choice([1, 2, 3], movies, p=[0.3, 0.4, 0.3])
    for place in range(3):
        chosen = how_many > place
        genres[np.flatnonzero(chosen), ranking[chosen, place]] = True
    return genres


def _plant_quality(
    rng: np.random.Generator, genres: npt.NDArray[np.bool_], years: Ints, directors: Ints
) -> Floats:
    """Stars above the mean, from genres, decade, director and noise in known proportions."""
    by_genre = genres @ rng.normal(0, 0.5, len(GENRES)) / genres.sum(axis=1)
    by_decade = 0.15 * (2000 - years // 10 * 10) / 10  # old movies that are still watched are good
    by_director = rng.normal(0, 0.6, directors.max() + 1)[directors]
    quality = by_genre + by_decade + by_director + rng.normal(0, 0.6, len(years))
    scaled: Floats = _QUALITY_STD * (quality - quality.mean()) / max(quality.std(), 1e-9)
    return scaled


def _ratings_per_user(config: SyntheticConfig) -> Ints:
    """A long-tailed number of ratings for each user, with the configured sum."""
    rng = _rng(config, "activity")
    activity = rng.lognormal(0.0, 1.0, config.num_users)
    fewest = min(_FEWEST_PER_USER, config.num_ratings // config.num_users, config.num_movies)
    counts = np.full(config.num_users, fewest, np.int64)
    while (rest := config.num_ratings - int(counts.sum())) > 0:
        # A user rates each movie at most once; what exceeds that goes to other users.
        room = config.num_movies - counts
        share = np.where(room > 0, activity, 0.0)
        counts += np.minimum(rng.multinomial(rest, share / share.sum()), room)
    return counts


def _times(rng: np.random.Generator, users: Ints, years: Ints) -> Ints:
    """Seconds since 1970: each user is active for days to years, after a movie's release."""
    distinct, position = np.unique(users, return_inverse=True)
    start = rng.uniform(_FIRST_TIME, _LAST_TIME, len(distinct))
    span = rng.lognormal(np.log(200 * 86_400), 1.5, len(distinct))
    times = start[position] + span[position] * rng.random(len(users))
    released = (years - 1970) * 31_557_600 + rng.uniform(0, 31_557_600, len(users))
    return np.clip(np.maximum(times, released), _FIRST_TIME, _LAST_TIME).astype(np.int64)


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
        rng = _rng(data.config, "tmdb")
        world, count = data.world, data.config.num_movies
        quality = world.quality / _QUALITY_STD
        votes = np.exp(5.5 + 1.2 * world.log_popularity + 0.3 * rng.normal(size=count))
        votes = np.where(rng.random(count) < 0.01, 0, votes).astype(np.int64)
        average = np.clip(6.4 + 0.8 * quality + 0.35 * rng.normal(size=count), 1, 10)
        budget = np.exp(16.5 + 0.6 * world.log_popularity + rng.normal(size=count))
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
            "release_date": "" if i % 97 == 5 else f"{world.years[i]}-06-15",
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
                    {"id": 10 * g + i % 5, "name": f"{GENRES[g].lower()} {i % 5}"} for g in genres
                ]
            },
        }


# -- the source ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SyntheticSource(Source):
    """Generated data."""

    config: SyntheticConfig

    licence: ClassVar[str] = "The data are synthetic and bound to no licence."
    is_synthetic: ClassVar[bool] = True
    has_tmdb_records: ClassVar[bool] = True

    @classmethod
    def open(cls, config: DataConfig, downloads: Path) -> SyntheticSource:
        """The data that ``data.synthetic`` describes."""
        return cls(SYNTHETIC, config.synthetic)

    @classmethod
    def name_for(cls, config: DataConfig) -> str:
        """Always ``synthetic``."""
        return SYNTHETIC

    @classmethod
    def expected_ratings(cls, config: DataConfig) -> int:
        """The configured number."""
        return config.synthetic.num_ratings

    @property
    def version(self) -> dict[str, Any]:
        """The generator's version and configuration."""
        return {"synthetic": self.config.model_dump(), "generator_version": GENERATOR_VERSION}

    def read(self) -> Tables:
        """Generate all tables in memory.

        Raises:
            ConfigError: if the configuration cannot be met.
        """
        data = SyntheticData.generate(self.config)
        tmdb = SyntheticTmdb.of(data)
        ratings = pa.Table.from_batches(data.rating_batches(), schema=RATINGS)
        return Tables(
            ratings=ratings,
            movies=data.movies(),
            links=data.links(tmdb.tmdb_ids, tmdb.imdb_ids),
            tags=data.tags(),
            notices=(SYNTHETIC_NOTICE,),
            noise_floor_rmse=data.noise_floor.rmse,
        )

    def write(self, target: Storage) -> Written:
        """Generate and write the ratings batch by batch, to bound memory.

        Raises:
            ConfigError: if the configuration cannot be met.
        """
        data = SyntheticData.generate(self.config)
        tmdb = SyntheticTmdb.of(data)
        with (
            (target / "ratings.parquet").writing() as stream,
            pq.ParquetWriter(stream, RATINGS, compression="zstd") as writer,
        ):
            for batch in data.rating_batches():
                writer.write_batch(batch)
        (target / "movies.parquet").write_table(data.movies())
        (target / "links.parquet").write_table(data.links(tmdb.tmdb_ids, tmdb.imdb_ids))
        (target / "tags.parquet").write_table(data.tags())
        return Written(data.noise_floor.rmse, (SYNTHETIC_NOTICE,))

    def tmdb_records(self) -> TmdbRecords:
        """Generated records, which are served over HTTP like TMDb's."""
        tmdb = SyntheticTmdb.of(SyntheticData.generate(self.config))
        return TmdbRecords(tmdb.movies, tmdb.by_imdb_id)
