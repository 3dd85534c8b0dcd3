"""Rankings of all movies that a user has not rated, with a fixed order of equal scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ncf.data.interactions import Interactions
from ncf.models.choice.base import ChoiceModel

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


def rank(
    model: ChoiceModel,
    known: Interactions,
    at: int,
    allowed: Bools | None = None,
    cells: int = 8_000_000,
) -> Integers:
    """``[B, at]`` positions of the movies that ``model`` ranks first for each user.

    Args:
        model: scores all movies.
        known: the ratings that the model may use, of movies that are not ranked.
        at: length of the rankings, at least 1.
        allowed: see ``top_unseen``.
        cells: scores that are in memory at once, at least those of one user.
    """
    size = max(1, cells // max(1, known.num_movies))
    ranked = np.empty((len(known), at), np.int64)
    for start in range(0, len(known), size):
        block = known.of_users(start, start + size)
        with torch.no_grad():
            ranked[start : start + size] = top_unseen(model.scores(block), block, at, allowed)
    return ranked


def top_unseen(
    scores: torch.Tensor, known: Interactions, at: int, allowed: Bools | None = None
) -> Integers:
    """``[B, at]`` positions of the movies with the highest scores, the highest first.

    Of equal scores, the first in the movie table comes first, also where only some of them are
    among the first ``at``. Ranks after the last candidate have -1.

    Args:
        scores: ``[B, M]``; movies with NaN or minus infinity are not ranked. Not modified.
        known: ratings of the B users; the movies are not ranked for them.
        at: length of the rankings, at least 1.
        allowed: ``[M]`` movies that may be ranked; all of them by default.

    Raises:
        ValueError: if ``scores`` are not of the users and movies of ``known``.
    """
    if scores.shape != (len(known), known.num_movies):
        raise ValueError(
            f"scores have the shape {list(scores.shape)}, expected "
            f"{[len(known), known.num_movies]}: one row a user, one column a movie"
        )
    candidates = _candidates(scores, known, allowed)
    positions = _highest(candidates, min(at, known.num_movies)).sort(dim=1).values
    values = candidates.gather(1, positions).double().cpu().numpy()
    # Stable, from ascending positions, so that those of equal scores stay in ascending order.
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = np.full((len(known), at), -1, np.int64)
    ranked[:, : order.shape[1]] = np.where(
        np.isneginf(np.take_along_axis(values, order, axis=1)),
        -1,
        np.take_along_axis(positions.cpu().numpy(), order, axis=1),
    )
    return ranked


def _candidates(scores: torch.Tensor, known: Interactions, allowed: Bools | None) -> torch.Tensor:
    """``[B, M]`` copy of ``scores`` with minus infinity for all that is not to be ranked."""
    # ``topk`` would take NaN for the highest score.
    found = scores.detach().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    rows, movies = (torch.from_numpy(part).to(found.device) for part in (known.rows, known.movies))
    found[rows, movies.long()] = -torch.inf
    if allowed is not None:
        found.masked_fill_(torch.from_numpy(~allowed).to(found.device), -torch.inf)
    return found


def _highest(candidates: torch.Tensor, count: int) -> torch.Tensor:
    """``[B, count]`` positions of the highest values, in any order; of equal ones the first."""
    # One more than needed shows whether ``topk`` had to choose between equal values.
    values, positions = candidates.topk(min(count + 1, candidates.shape[1]), dim=1)
    if values.shape[1] == count:
        return positions
    last, next_value = values[:, count - 1], values[:, count]
    positions = positions[:, :count]
    rows = ((last == next_value) & (last > -torch.inf)).nonzero()[:, 0]
    if len(rows):
        positions[rows] = _first_of_equal(candidates[rows], last[rows, None], count)
    return positions


def _first_of_equal(candidates: torch.Tensor, last: torch.Tensor, count: int) -> torch.Tensor:
    """``[R, count]`` positions of all values above ``last: [R, 1]`` and the first equal to it."""
    size = candidates.shape[1]
    # Numbers for ``topk`` to take the highest of: of equal values, the first has the highest.
    from_the_end = torch.arange(size, 0, -1, dtype=torch.int32, device=candidates.device)
    numbers = torch.where(candidates == last, from_the_end, 0)
    return numbers.masked_fill_(candidates > last, size + 1).topk(count, dim=1).indices
