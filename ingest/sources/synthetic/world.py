"""The true model of a synthetic data set: movies, users, their tastes and the true ratings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.config import SyntheticConfig

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

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

FIRST_TIME: Final = 828_000_000  # March 1996
LAST_TIME: Final = 1_537_800_000  # September 2018
MONTH_S: Final = 31_557_600 // 12
QUALITY_STD: Final = 0.5

_MEAN: Final = 3.05
_USER_STD: Final = 0.45
_TASTE_STD: Final = 0.75
_DRIFT_STD: Final = 0.3  # stars over the whole period, per user
_TREND: Final = -0.2  # stars over the whole period, for all
_RANK: Final = 4
_OWN_TASTE: Final = 0.15  # share of a movie's factors that its content does not tell
_POPULARITY_STD: Final = 1.5  # of the logarithm


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

    def true_ratings(self, users: Ints, movies: Ints, times: Ints) -> Floats:
        """Stars without noise, before clipping; all ``[N]``."""
        age = (times - FIRST_TIME) / (LAST_TIME - FIRST_TIME) - 0.5
        drift = (_TREND + self.user_slope[users]) * age
        rating: Floats = _MEAN + self.user_bias[users] + self.liking(users, movies) + drift
        return rating

    def release_date(self, position: int) -> str:
        """A day of the month before a movie can be rated, such as ``1999-03-15``."""
        return f"{self.years[position]}-{(self.available[position] - 1) % 12 + 1:02}-15"


def rng_for(config: SyntheticConfig, purpose: str) -> np.random.Generator:
    """A separate generator for each purpose, so that a change in one does not affect others."""
    return np.random.default_rng([config.seed, *purpose.encode()])


def plant(config: SyntheticConfig) -> World:
    """Draw the true model of a data set."""
    rng = rng_for(config, "world")
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


def _plant_quality(
    rng: np.random.Generator, genres: npt.NDArray[np.bool_], years: Ints, directors: Ints
) -> Floats:
    """Stars above the mean, from genres, decade, director and noise in known proportions."""
    by_genre = genres @ rng.normal(0, 0.5, len(GENRES)) / genres.sum(axis=1)
    by_decade = 0.15 * (2000 - years // 10 * 10) / 10  # old movies that are still watched are good
    by_director = rng.normal(0, 0.6, directors.max() + 1)[directors]
    quality = by_genre + by_decade + by_director + rng.normal(0, 0.6, len(years))
    return QUALITY_STD * _standardised(quality)


def _standardised(values: Floats) -> Floats:
    """Mean 0 and standard deviation 1, or all 0."""
    found: Floats = (values - values.mean()) / max(values.std(), 1e-9)
    return found
