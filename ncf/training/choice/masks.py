"""Masks: which of each user's ratings are known, and which are the choices to predict."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from ncf.data.interactions import Interactions

Mask = Literal["random", "forward"]
"""``random``: known ones are drawn at random; ``forward``: all known ones are older."""

SHARES: Final = (0.2, 0.8)
"""Known share of a user's ratings, between which it is drawn uniformly: the network learns from
short and from long histories."""


def known_ratings(
    ratings: Interactions, mask: Mask, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """``[N]`` which ratings are known: of each user at least one is, and at least one is not.

    Every user must have two ratings or more.
    """
    shares = rng.uniform(*SHARES, len(ratings))
    if mask == "forward":
        return _oldest(ratings, shares)
    return _at_random(ratings, shares, rng)


def _oldest(ratings: Interactions, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    counts = ratings.counts
    num_known = np.clip(np.rint(shares * counts), 1, counts - 1)
    rows = ratings.rows
    position = np.arange(ratings.num_ratings) - ratings.starts[rows]
    return position < num_known[rows]


def _at_random(
    ratings: Interactions, shares: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    numbers = rng.random(ratings.num_ratings)
    rows, firsts = ratings.rows, ratings.starts[:-1]
    lowest = np.minimum.reduceat(numbers, firsts)[rows]
    highest = np.maximum.reduceat(numbers, firsts)[rows]
    # The lowest number is known and the highest is not, even if the share is beyond all numbers.
    return ((numbers < shares[rows]) | (numbers == lowest)) & (numbers != highest)
