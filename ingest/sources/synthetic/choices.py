"""Which movies users meet and choose, and in which of their sessions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.sources.synthetic.world import (
    FIRST_TIME,
    GENRES,
    LAST_TIME,
    MONTH_S,
    Floats,
    Ints,
    World,
)

_GENRE_TASTE: Final = 3.0  # log odds of a genre for each star that it is liked better
_HABIT_STD: Final = 0.8  # log odds of a genre, apart from taste
_NEW_SHARE: Final = 0.3  # of the movies that users meet
_NEW_MONTHS: Final = 24  # how long a movie is new
_CHOOSINESS: Final = 3.0  # log odds of choosing a movie for each star that it is liked better
_DEMAND: Final = 0.1  # stars above the mean at which half of the movies are chosen
_RATINGS_PER_SESSION: Final = 25
_SESSION_S: Final = 7_200
_FIRST_MONTH: Final = FIRST_TIME // MONTH_S - _NEW_MONTHS
_NUM_MONTHS: Final = LAST_TIME // MONTH_S - _FIRST_MONTH + 1
_MOST_ROUNDS: Final = 30
_SESSION_BITS: Final = 16
_CELLS: Final = 200_000  # users x movies in a block
_LEAST_PROBABILITY: Final = 1e-9  # of a movie that a user cannot meet


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
        begin = rng.uniform(FIRST_TIME, LAST_TIME - _SESSION_S, len(users))
        span = rng.lognormal(np.log(200 * 86_400), 1.5, len(users))
        end = np.minimum(begin + span, LAST_TIME - _SESSION_S)
        starts = begin[owner] + (end - begin)[owner] * rng.random(len(owner))
        return cls(
            genres=odds / odds.sum(axis=1, keepdims=True),
            first=np.concatenate([[0], np.cumsum(number)]),
            starts=starts[np.lexsort((starts, owner))].astype(np.int64),
        )

    @cached_property
    def columns(self) -> Ints:
        """``[S]`` months of the sessions."""
        return _month_column(self.starts // MONTH_S)

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
            keys = owner * LAST_TIME + self.starts  # ascending
            first = np.clip(np.searchsorted(keys, owners * LAST_TIME + since), first, end - 1)
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
        released = self.world.available[movies] * MONTH_S
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
