"""What recommended movies are ordered by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from ncf.errors import InputError, UnsupportedError
from ncf.inference.checkpoint import Checkpoint
from ncf.inference.top_k import Adjust
from ncf.models.history.ratings import Ratings

Floats = npt.NDArray[np.float32]

OrderName = Literal["auto", "choice", "stars", "stars+popularity", "lower_bound"]


@dataclass(frozen=True)
class Ordering:
    """How movies are ordered, and which ones are offered; the settings of ``recommend``."""

    by: OrderName = "auto"
    """``choice``: how likely the user is to choose them; ``stars``: the predicted rating;
    ``stars+popularity``: that plus ``popularity`` times the logarithm of 1 + training ratings;
    ``lower_bound``: that minus ``deviations`` standard deviations of the Gaussian process;
    ``auto``: ``choice`` if there is a choice model, else ``stars``."""
    min_ratings: int = 3
    """Training ratings of a movie that is offered."""
    popularity: float = 1.0
    deviations: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is none.

        Raises:
            InputError: naming the field.
        """
        if self.by not in get_args(OrderName):
            raise InputError(
                f"by: found {self.by!r}, expected one of {', '.join(get_args(OrderName))}"
            )
        for name in ("min_ratings", "popularity", "deviations"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name}: found {getattr(self, name)!r}, expected 0 or more")


DEFAULT_ORDERING = Ordering()


def adjustment(ordering: Ordering, rating_model: Checkpoint, today: int) -> Adjust:
    """What movies are ordered by, given the predicted ratings at the time ``today``.

    Raises:
        UnsupportedError: for ``lower_bound``, if the model does not know how sure it is.
    """
    counts = rating_model.preprocessor.movies.train_counts
    added = np.where(counts >= ordering.min_ratings, 0.0, -np.inf).astype(np.float32)
    if ordering.by == "stars+popularity":
        added += (ordering.popularity * np.log1p(counts)).astype(np.float32)
    if ordering.by != "lower_bound":
        return lambda user, stars: stars + added
    model = rating_model.model
    if not model.has_attributions:
        raise UnsupportedError(
            'order = "lower_bound" needs the standard deviation of predictions, which only a model '
            "with the Gaussian process knows (model.history.encoders); use another order"
        )
    movies = torch.arange(len(counts))
    rows = Ratings.of(movies, torch.full_like(movies, today))

    def lower_bound(user: int, stars: Floats) -> Floats:
        deviations: Floats = model.deviations(user, rows).numpy()
        return stars + added - ordering.deviations * deviations

    return lower_bound
