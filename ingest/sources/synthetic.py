"""A generated, MovieLens-shaped data set whose true model is known.

A rating is ``mean + user bias + movie quality + taste + drift + noise``, rounded to half stars and
clipped to 0.5..5:

- quality depends on the movie's genres, decade and director; TMDb's numbers are noisy views of it;
- taste is the product of user and movie factors; a movie's factors depend mostly on its genres, its
  year and the size of its production, of which TMDb's budget is a noisy view;
- drift is a linear trend over the years, with a slope for each user.

What a user rates is a choice. In a session they feel like a genre and meet one of its movies that
are out, more likely a popular or a new one. They choose it if they expect to like it, or else look
for another one. So

- the numbers of ratings have a long tail, and each user rates a movie once;
- the genres depend on the user's taste, and on a habit that has nothing to do with it;
- ratings are missing not at random: chosen movies have higher true ratings than others.

So a model of users and movies beats their means, a model with genres, people and numbers is better
still on rarely rated movies, and no model can beat the noise floor in ``dataset.json``. No ranking
of movies that a user does not know can be expected to beat that by ``choice_oracle``. The seed
determines everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
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

GENERATOR_VERSION: Final = 2
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

_MEAN: Final = 3.05
_USER_STD: Final = 0.45
_QUALITY_STD: Final = 0.5
_TASTE_STD: Final = 0.75
_DRIFT_STD: Final = 0.3  # stars over the whole period, per user
_TREND: Final = -0.2  # stars over the whole period, for all
_RANK: Final = 4
_OWN_TASTE: Final = 0.15  # share of a movie's factors that its content does not tell
_FIRST_TIME: Final = 828_000_000  # March 1996
_LAST_TIME: Final = 1_537_800_000  # September 2018
_RATINGS_AT_A_TIME: Final = 500_000
_FEWEST_PER_USER: Final = 20

_POPULARITY_STD: Final = 1.5  # of the logarithm
_GENRE_TASTE: Final = 3.0  # log odds of a genre for each star that it is liked better
_HABIT_STD: Final = 0.8  # log odds of a genre, apart from taste
_NEW_SHARE: Final = 0.3  # of the movies that users meet
_NEW_MONTHS: Final = 24  # how long a movie is new
_CHOOSINESS: Final = 3.0  # log odds of choosing a movie for each star that it is liked better
_DEMAND: Final = 0.1  # stars above the mean at which half of the movies are chosen
_RATINGS_PER_SESSION: Final = 25
_SESSION_S: Final = 7_200
_MONTH_S: Final = 31_557_600 // 12
_FIRST_MONTH: Final = _FIRST_TIME // _MONTH_S - _NEW_MONTHS
_NUM_MONTHS: Final = _LAST_TIME // _MONTH_S - _FIRST_MONTH + 1
_MOST_ROUNDS: Final = 30
_SESSION_BITS: Final = 16
_CELLS: Final = 200_000  # users x movies in a block
_LEAST_PROBABILITY: Final = 1e-9  # of a movie that a user cannot meet


@dataclass(frozen=True)
class World:
    """The true model: one entry for each movie or user, in order of id."""

    movie_ids: Ints
    titles: list[str]
    years: Ints
    available: Ints  # first month since January 1970 in which the movie can be rated
    genres: npt.NDArray[np.bool_]  # movies x GENRES
    directors: Ints
    scale: Floats  # size of the production, standardised
    quality: Floats  # stars above the mean
    log_popularity: Floats
    movie_factors: Floats
    user_bias: Floats
    user_factors: Floats
    user_slope: Floats

    def liking(self, users: Ints, movies: Ints) -> Floats:
        """Quality plus taste in stars, by which movies differ for a user; ``[N], [N] -> [N]``."""
        taste = np.einsum("nk,nk->n", self.user_factors[users], self.movie_factors[movies])
        found: Floats = self.quality[movies] + taste
        return found

    def release_date(self, position: int) -> str:
        """A day of the month before a movie can be rated, such as ``1999-03-15``."""
        return f"{self.years[position]}-{(self.available[position] - 1) % 12 + 1:02}-15"


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
        row = 0
        for number, counts, choices in self.chunks():
            rng = _rng(self.config, f"ratings {number}")
            owners, movies, sessions = choices.draw(rng, counts)
            released = self.world.available[movies] * _MONTH_S
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
            rng = _rng(self.config, f"habits {chunk}")
            habits = Habits.of(rng, self.world, shelves, users, counts[users])
            yield chunk, counts[users], Choices(self.world, shelves, habits, users)

    def _rate(
        self, rng: np.random.Generator, users: Ints, movies: Ints, times: Ints, row: int
    ) -> pa.RecordBatch:
        """Ratings of the given pairs."""
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
        drift = (_TREND + world.user_slope[users]) * age
        prediction: Floats = _MEAN + world.user_bias[users] + world.liking(users, movies) + drift
        return prediction


# -- choices ---------------------------------------------------------------------------------------


def choice_oracle(config: SyntheticConfig, user_ids: Ints | None = None) -> Floats:
    """Logarithms of the true probabilities of a user's choices, from the seed alone.

    They are those of a choice in any of the user's sessions, whatever the user knows already.
    Ordering the movies that a user does not know by them is the best ranking to be expected on
    held-out ratings that were drawn at random. On the newest ones, a ranking that knows their
    times may be better.

    Args:
        config: of the data set.
        user_ids: ``[U]`` in ascending order, to compute large data sets in parts; None for all.

    Returns:
        ``[U, M]``, rows and columns in the order of ids; the exponentials of a row add up to 1.

    Raises:
        ConfigError: if the configuration cannot be met.
    """
    data = SyntheticData.generate(config)
    wanted = np.arange(config.num_users) if user_ids is None else user_ids - 1
    rows = [np.empty((0, config.num_movies))]
    for _, _, choices in data.chunks():
        part = np.flatnonzero(np.isin(choices.users, wanted))
        rows += [choices.log_probabilities(block) for block in choices.blocks(part)]
    return np.concatenate(rows)


@dataclass(frozen=True)
class Shelves:
    """Each genre's movies in order of release, so that those of some months are consecutive.

    ``E`` pairs of a movie and one of its genres, and ``T`` months.
    """

    weights: Floats  # [M, GENRES] popularity, divided among the movie's genres
    columns: Ints  # [M] first month in which the movie can be rated
    movies: Ints  # [E] movies of the first genre, of the second, ...
    ends: Floats  # [E] cumulative weights
    until: Floats  # [GENRES, T + 1] cumulative weight of what is out before each month

    @classmethod
    def of(cls, world: World) -> Shelves:
        """The shelves of ``world``'s movies."""
        share = world.genres / world.genres.sum(axis=1, keepdims=True)
        weights = np.exp(world.log_popularity)[:, None] * share
        columns = _month_column(world.available)
        genres, movies = np.nonzero(world.genres.T)
        keys = genres * _NUM_MONTHS + columns[movies]
        order = np.argsort(keys, kind="stable")
        ends = np.cumsum(weights[movies[order], genres[order]])
        months = np.arange(len(GENRES))[:, None] * _NUM_MONTHS + np.arange(_NUM_MONTHS + 1)
        before = np.searchsorted(keys[order], months)
        return cls(weights, columns, movies[order], ends, np.append(0.0, ends)[before])

    def ranges(self, genres: Ints, columns: Ints) -> tuple[Floats, Floats, Floats]:
        """Cumulative weights where a genre begins, its new movies begin, and what is out ends."""
        return (
            self.until[genres, 0],
            self.until[genres, columns + 1 - _NEW_MONTHS],
            self.until[genres, columns + 1],
        )

    def at(self, positions: Floats) -> Ints:
        """The movies at these cumulative weights, ``[N] -> [N]``."""
        entries = np.searchsorted(self.ends, positions, side="right")
        return self.movies[np.minimum(entries, len(self.movies) - 1)]


@dataclass(frozen=True)
class Habits:
    """What ``U`` users feel like, and when they are active: ``S`` sessions in order of user."""

    genres: Floats  # [U, GENRES] probabilities
    first: Ints  # [U + 1] each user's first session
    starts: Ints  # [S] seconds since 1970, ascending for each user

    @classmethod
    def of(
        cls,
        rng: np.random.Generator,
        world: World,
        shelves: Shelves,
        users: Ints,
        counts: Ints,
    ) -> Habits:
        """Draw those of users with so many ratings, ``[U], [U]``."""
        factors = world.genres.T @ world.movie_factors
        factors /= np.maximum(world.genres.sum(axis=0), 1)[:, None]
        mood = _GENRE_TASTE * world.user_factors[users] @ factors.T
        mood += _HABIT_STD * rng.normal(size=mood.shape)
        odds = np.exp(mood) * shelves.weights.sum(axis=0)
        number = 1 + rng.poisson(counts / _RATINGS_PER_SESSION)
        owner = np.repeat(np.arange(len(users)), number)
        begin = rng.uniform(_FIRST_TIME, _LAST_TIME - _SESSION_S, len(users))
        span = rng.lognormal(np.log(200 * 86_400), 1.5, len(users))
        end = np.minimum(begin + span, _LAST_TIME - _SESSION_S)
        starts = begin[owner] + (end - begin)[owner] * rng.random(len(owner))
        return cls(
            genres=odds / odds.sum(axis=1, keepdims=True),
            first=np.concatenate([[0], np.cumsum(number)]),
            starts=starts[np.lexsort((starts, owner))].astype(np.int64),
        )

    @cached_property
    def columns(self) -> Ints:
        """``[S]`` months of the sessions."""
        return _month_column(self.starts // _MONTH_S)

    @cached_property
    def genre_ends(self) -> Floats:
        """``[U * GENRES]`` cumulative probabilities of all users, one after the other."""
        ends = np.cumsum(self.genres, axis=1)
        ends /= ends[:, -1:]
        return (np.arange(len(ends))[:, None] + ends).ravel()

    def some_genres(self, rng: np.random.Generator, owners: Ints) -> Ints:
        """A genre that each owner feels like, ``[N] -> [N]``."""
        drawn = np.searchsorted(self.genre_ends, owners + rng.random(len(owners)), side="right")
        return np.minimum(drawn - owners * len(GENRES), len(GENRES) - 1)

    def some_sessions(
        self, rng: np.random.Generator, owners: Ints, since: Ints | None = None
    ) -> Ints:
        """One of each owner's sessions, of those ``since`` a time if there are any; all ``[N]``."""
        first, end = self.first[owners], self.first[owners + 1]
        if since is not None:
            owner = np.repeat(np.arange(len(self.genres)), np.diff(self.first))
            keys = owner * _LAST_TIME + self.starts  # ascending
            first = np.clip(np.searchsorted(keys, owners * _LAST_TIME + since), first, end - 1)
        return first + (rng.random(len(owners)) * (end - first)).astype(np.int64)

    def times(self, rng: np.random.Generator, sessions: Ints, released: Ints) -> Ints:
        """Seconds since 1970 in the sessions, or at the release if that is later; all ``[N]``."""
        times = self.starts[sessions] + rng.integers(0, _SESSION_S, len(sessions))
        return np.maximum(times, released)


@dataclass(frozen=True)
class Choices:
    """The choices of a chunk of ``U`` users among ``M`` movies."""

    world: World
    shelves: Shelves
    habits: Habits
    users: Ints  # [U] positions in the world

    def draw(self, rng: np.random.Generator, counts: Ints) -> tuple[Ints, Ints, Ints]:
        """``counts[u]`` distinct movies for each user ``u``.

        Returns:
            Positions of users in the chunk, of movies, and of sessions; sorted by user and movie.
        """
        # Rejection is fast while a user rates a small part of all movies, and very slow near all.
        num_movies = self._num_movies
        keys = self._by_rejection(rng, np.where(counts > num_movies // 6, 0, counts))
        missing = counts - np.bincount(self._owners(keys), minlength=len(counts))
        parts = [keys]
        for members in self.blocks(np.flatnonzero(missing)):
            known = keys[np.isin(self._owners(keys), members)]
            parts.append(self._by_ranking(rng, members, missing[members], known))
        keys = np.sort(np.concatenate(parts), kind="stable")
        pairs = keys >> _SESSION_BITS
        owners = pairs // num_movies
        sessions = self.habits.first[owners] + keys % (1 << _SESSION_BITS)
        return owners, pairs % num_movies, sessions

    def blocks(self, members: Ints) -> list[Ints]:
        """``members`` in blocks whose users' probabilities take little memory."""
        size = max(1, _CELLS // max(self._num_movies, _NUM_MONTHS))
        return [members[start : start + size] for start in range(0, len(members), size)]

    def log_probabilities(self, members: Ints) -> Floats:
        """Of the users at these positions in the chunk, ``[B] -> [B, M]``."""
        users = self.users[members]
        liking = self.world.quality + self.world.user_factors[users] @ self.world.movie_factors.T
        odds = self._exposure(members) * _willingness(liking)
        odds /= np.maximum(odds.sum(axis=1, keepdims=True), _LEAST_PROBABILITY)
        odds += _LEAST_PROBABILITY
        found: Floats = np.log(odds / odds.sum(axis=1, keepdims=True))
        return found

    def _exposure(self, members: Ints) -> Floats:
        """How often these users meet each movie, relative to others, ``[B] -> [B, M]``."""
        shelves, first = self.shelves, self.habits.first
        # Sessions of consecutive members are not consecutive if others are between them.
        number = np.diff(first)
        is_meant = np.isin(np.arange(len(number)), members)
        owners = np.repeat(np.arange(len(members)), number[members])
        columns = self.habits.columns[np.repeat(is_meant, number)]
        begin, new, end = shelves.ranges(np.arange(len(GENRES)), columns[:, None])
        share = np.where(new < end, _NEW_SHARE, 0.0)
        # By session, the rate at which a unit of weight is met: once it is out, and while new.
        rates = np.zeros((2, len(members), _NUM_MONTHS + _NEW_MONTHS, len(GENRES)))
        np.add.at(rates[0], (owners, columns), _ratio(1 - share, end - begin))
        np.add.at(rates[1], (owners, columns), _ratio(share, end - new))
        once_out, while_new = np.cumsum(rates[:, :, ::-1], axis=2)[:, :, ::-1]
        rate = (once_out + while_new)[:, :_NUM_MONTHS] - while_new[:, _NEW_MONTHS:]
        rate *= self.habits.genres[members][:, None]
        movies, genres = np.nonzero(shelves.weights)
        met = rate[:, shelves.columns[movies], genres] * shelves.weights[movies, genres]
        found: Floats = np.add.reduceat(met, np.flatnonzero(np.diff(movies, prepend=-1)), axis=1)
        return found

    def _by_rejection(self, rng: np.random.Generator, counts: Ints) -> Ints:
        """Keys of at most ``counts[u]`` choices of each user ``u``, ascending.

        A user looks on when they turn a movie down or know it, but not for ever.
        """
        done: list[Ints] = []
        kept, missing = np.empty(0, np.int64), counts
        for attempt in range(_MOST_ROUNDS):
            if not missing.any():
                break
            drawn = self._accepted(rng, np.repeat(np.arange(len(counts)), (2 + attempt) * missing))
            drawn = drawn[~_is_in(drawn >> _SESSION_BITS, kept >> _SESSION_BITS)]
            drawn = np.sort(drawn[self._place(drawn, len(counts)) < missing[self._owners(drawn)]])
            drawn = drawn[np.diff(drawn >> _SESSION_BITS, prepend=-1) > 0]  # once, in any session
            kept = np.sort(np.concatenate([kept, drawn]), kind="stable")  # which merges
            owners = self._owners(kept)
            missing = counts - np.bincount(owners, minlength=len(counts))
            is_done = missing[owners] == 0
            done.append(kept[is_done])
            kept, counts = kept[~is_done], np.where(missing, counts, 0)
        return np.sort(np.concatenate([*done, kept]), kind="stable")

    def _place(self, keys: Ints, num_users: int) -> Ints:
        """How many keys of the same user are before each one; those of a user are consecutive."""
        number = np.bincount(self._owners(keys), minlength=num_users)
        return np.arange(len(keys)) - np.repeat(np.cumsum(number) - number, number)

    def _accepted(self, rng: np.random.Generator, owners: Ints) -> Ints:
        """Keys of the movies that these users meet and choose, in the order of ``owners: [N]``."""
        genres = self.habits.some_genres(rng, owners)
        sessions = self.habits.some_sessions(rng, owners)
        begin, new, end = self.shelves.ranges(genres, self.habits.columns[sessions])
        begin = np.where((rng.random(len(owners)) < _NEW_SHARE) & (new < end), new, begin)
        movies = self.shelves.at(begin + (end - begin) * rng.random(len(owners)))
        liking = self.world.liking(self.users[owners], movies)
        accepted = (rng.random(len(owners)) < _willingness(liking)) & (begin < end)
        return self._keys(owners[accepted], movies[accepted], sessions[accepted])

    def _by_ranking(
        self, rng: np.random.Generator, members: Ints, counts: Ints, known: Ints
    ) -> Ints:
        """Keys of exactly ``counts: [B]`` choices besides those ``known``, keys of these users."""
        scores = self.log_probabilities(members) + rng.gumbel(size=(len(members), self._num_movies))
        pairs = known >> _SESSION_BITS
        rows = np.searchsorted(members, pairs // self._num_movies)
        scores[rows, pairs % self._num_movies] = -np.inf
        ranking = np.argsort(-scores, axis=1)
        chosen = np.arange(self._num_movies) < counts[:, None]
        owners, movies = np.repeat(members, counts), ranking[chosen]
        released = self.world.available[movies] * _MONTH_S
        return self._keys(owners, movies, self.habits.some_sessions(rng, owners, released))

    @property
    def _num_movies(self) -> int:
        return len(self.shelves.columns)

    def _keys(self, owners: Ints, movies: Ints, sessions: Ints) -> Ints:
        """One number for each choice; they are sorted by user, movie and time."""
        pairs = owners * self._num_movies + movies
        return (pairs << _SESSION_BITS) + sessions - self.habits.first[owners]

    def _owners(self, keys: Ints) -> Ints:
        return (keys >> _SESSION_BITS) // self._num_movies


def _willingness(liking: Floats) -> Floats:
    """Probability of choosing a movie that one meets."""
    odds: Floats = 1 / (1 + np.exp(_CHOOSINESS * (_DEMAND - liking)))
    return odds


def _is_in(values: Ints, known: Ints) -> npt.NDArray[np.bool_]:
    """Whether each value is among ``known``, which are ascending."""
    if not len(known):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[at] == values
    return found


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """0 where the denominator is."""
    found: Floats = np.divide(
        numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0
    )
    return found


def _month_column(months: Ints) -> Ints:
    """Months since January 1970, as columns of ``Shelves.until``: 0 for the old ones."""
    return np.maximum(months - _FIRST_MONTH, 0)


def _rng(config: SyntheticConfig, purpose: str) -> np.random.Generator:
    """A separate generator for each purpose, so that a change in one does not affect others."""
    return np.random.default_rng([config.seed, *purpose.encode()])


def _plant(config: SyntheticConfig) -> World:
    rng = _rng(config, "world")
    movies, users = config.num_movies, config.num_users
    genres = _plant_genres(rng, movies)
    years = np.clip(2017 - rng.exponential(18, movies), 1920, 2017).astype(np.int64)
    months = (years - 1970) * 12 + rng.integers(0, 12, movies)
    directors = np.minimum(rng.geometric(4 / (movies + 4), movies), movies)
    quality = _plant_quality(rng, genres, years, directors)
    scale = _standardised(genres @ rng.normal(size=len(GENRES)) + rng.normal(size=movies))
    return World(
        movie_ids=np.cumsum(rng.integers(1, 4, movies)),
        titles=[
            f"The {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)} {number} ({year})"
            for number, year in enumerate(years.tolist(), 1)
        ],
        years=years,
        available=months + 1,
        genres=genres,
        directors=directors,
        scale=scale,
        quality=quality,
        log_popularity=_POPULARITY_STD * (0.4 * scale + 0.9 * rng.normal(size=movies)) + quality,
        movie_factors=_plant_factors(rng, genres, years, scale),
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


def _plant_factors(
    rng: np.random.Generator, genres: npt.NDArray[np.bool_], years: Ints, scale: Floats
) -> Floats:
    """``[M, RANK]``, mostly from genres, year and scale."""
    era = _standardised(np.minimum(2017 - years, 60) ** 0.5)
    weights = rng.normal(size=(len(GENRES) + 2, _RANK))
    by_genre = genres @ weights[:-2] / np.sqrt(genres.sum(axis=1, keepdims=True))
    by_number = 0.4 * (era[:, None] * weights[-2] + scale[:, None] * weights[-1])
    factors = 0.8 * by_genre + by_number + _OWN_TASTE * rng.normal(size=by_genre.shape)
    scaled: Floats = _TASTE_STD * factors / np.sqrt(np.square(factors).sum(axis=1).mean())
    return scaled


def _standardised(values: Floats) -> Floats:
    """Mean 0 and standard deviation 1, or all 0."""
    found: Floats = (values - values.mean()) / max(values.std(), 1e-9)
    return found


def _plant_quality(
    rng: np.random.Generator, genres: npt.NDArray[np.bool_], years: Ints, directors: Ints
) -> Floats:
    """Stars above the mean, from genres, decade, director and noise in known proportions."""
    by_genre = genres @ rng.normal(0, 0.5, len(GENRES)) / genres.sum(axis=1)
    by_decade = 0.15 * (2000 - years // 10 * 10) / 10  # old movies that are still watched are good
    by_director = rng.normal(0, 0.6, directors.max() + 1)[directors]
    quality = by_genre + by_decade + by_director + rng.normal(0, 0.6, len(years))
    return _QUALITY_STD * _standardised(quality)


def _ratings_per_user(config: SyntheticConfig) -> Ints:
    """A long-tailed number of ratings for each user, with the configured sum."""
    rng = _rng(config, "activity")
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
