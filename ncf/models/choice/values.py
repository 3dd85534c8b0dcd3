"""What a rating says about a choice, by its stars and its age."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ncf.choice_config import ValuesConfig
from ncf.data.interactions import Floats, Interactions

SECONDS_PER_YEAR: Final = 365.25 * 86_400


def rating_values(ratings: Interactions, config: ValuesConfig, mean: float) -> Floats:
    """``[N]`` 1 + ``config.stars`` * (stars - the user's damped mean), at least ``config.floor``.

    ``mean`` is that of the training ratings, in stars.
    """
    if not config.stars:
        return np.ones(ratings.num_ratings, np.float32)
    of_users = user_means(ratings, mean, config.damping)[ratings.rows]
    values = 1 + config.stars * (ratings.ratings - of_users)
    return np.maximum(values, config.floor).astype(np.float32)


def user_means(ratings: Interactions, mean: float, damping: float) -> npt.NDArray[np.float64]:
    """``[B]`` mean of each user's ratings and ``damping`` ratings of ``mean``."""
    sums = np.bincount(ratings.rows, ratings.ratings, minlength=len(ratings))
    counts = ratings.counts + damping
    # A user without ratings, with no damping, has the overall mean.
    return np.divide(
        sums + damping * mean, counts, out=np.full(len(ratings), mean), where=counts > 0
    )


def age_weights(ratings: Interactions, half_life_years: float) -> Floats:
    """``[N]`` 1 for each user's newest rating, half as much for each half-life before it."""
    if not half_life_years:
        return np.ones(ratings.num_ratings, np.float32)
    age = (ratings.last_times[ratings.rows] - ratings.times) / SECONDS_PER_YEAR
    return np.exp2(-age / half_life_years).astype(np.float32)


def user_weights(ratings: Interactions, half_life_years: float) -> Floats:
    """``[B]`` 1 for the user with the newest rating of all, half as much for each half-life between
    that rating and the user's own newest."""
    last = ratings.last_times
    if not half_life_years or not len(last):
        return np.ones(len(ratings), np.float32)
    return np.exp2((last - last.max()) / SECONDS_PER_YEAR / half_life_years).astype(np.float32)
