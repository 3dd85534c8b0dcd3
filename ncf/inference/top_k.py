"""Recommend unseen movies, and score rankings of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ncf.evaluation.ranking import RANKED, RELEVANT_STARS, RankingScores, SeenMovies
from ncf.inference.all_pairs import all_pairs
from ncf.inference.checkpoint import Checkpoint
from ncf.inference.stars import rows_to_predict

_PAIRS_AT_ONCE = 262_144
"""Pairs of a user and a movie in one forward pass; bounds memory at any catalogue size."""

_PAIRS_TO_SCORE: Final = 50_000_000
"""Maximum pairs of a user and a movie that are predicted to score rankings: all pairs of ml-1m, and
those of some hundred users of larger releases, which is enough for two digits."""


_BLENDED: Final = 200
"""Movies of each user that a blend orders, the best by its network."""

Adjust = Callable[[int, npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Of a user's index and predictions ``[M]``, what movies are ordered by, ``[M]``; minus infinity
omits one."""


@dataclass(frozen=True)
class Ranking:
    """The best unseen movies of some users, best first."""

    movies: npt.NDArray[np.int64]
    """``[B, N]`` positions in the movie table; -1 after the last unseen movie."""
    stars: npt.NDArray[np.float32]
    """``[B, N]`` predictions in the training target's unit, stars unless that is the decayed
    rating; NaN after the last unseen movie."""


def score_rankings(
    checkpoint: Checkpoint, seen: SeenMovies, relevant: SeenMovies
) -> dict[str, Any]:
    """Scores of rankings by the model's predictions, and by popularity.

    Each user's ranking has all movies of the catalogue except those in ``seen``; popularity is the
    number of training ratings. Users without an index or without a ``relevant`` movie are left out.
    If there are too many users for the size of the catalogue, a random sample is scored. Without
    any user, the scores are None.
    """
    counts = np.diff(relevant.starts)[1:]
    users = 1 + np.flatnonzero(counts)
    result: dict[str, Any] = {
        "at": RANKED,
        "relevant_stars": RELEVANT_STARS,
        "num_users": len(users),
        "model": None,
        "popularity": None,
    }
    max_users = max(1, _PAIRS_TO_SCORE // len(checkpoint.preprocessor.movies))
    if len(users) > max_users:
        users = np.sort(np.random.default_rng(0).choice(users, max_users, replace=False))
    result["num_users_ranked"] = len(users)
    if len(users):
        popularity = checkpoint.preprocessor.movies.train_counts.astype(np.float32)
        by_count = np.full((len(users), RANKED), -1, dtype=np.int64)
        for row, user in enumerate(users):
            best = _best(popularity, seen.by(int(user)), RANKED)
            by_count[row, : len(best)] = best
        by_model = top_movies(checkpoint, users, seen, RANKED).movies
        result["model"] = asdict(RankingScores.of(by_model, users, relevant))
        result["popularity"] = asdict(RankingScores.of(by_count, users, relevant))
    return result


def top_movies(
    checkpoint: Checkpoint,
    users: npt.NDArray[np.int64],
    seen: SeenMovies,
    top_n: int,
    today: int | None = None,
    adjust: Adjust | None = None,
) -> Ranking:
    """The ``top_n`` movies with the highest predicted rating among those a user has not rated.

    ``users: [B]`` are user indices; of movies with equal predictions, the first in the table wins.
    Movies without training ratings are candidates too, by their content. A blend orders the 200
    that its network puts first, as its other members take too long for all pairs. ``today`` is the
    time of the predictions in seconds since 1970 UTC, for a model that ``uses_time``; by default
    the decay's reference date. ``adjust`` changes what movies are ordered by.
    """
    num_movies = len(checkpoint.preprocessor.movies)
    top_n = min(top_n, num_movies)
    movies = np.full((len(users), top_n), -1, dtype=np.int64)
    stars = np.full((len(users), top_n), np.nan, dtype=np.float32)
    users_at_once = max(1, _PAIRS_AT_ONCE // num_movies)
    moment = checkpoint.preprocessor.decay_reference if today is None else today
    order = adjust or _as_they_are
    candidates = top_n if checkpoint.blend is None else _BLENDED
    with torch.inference_mode():
        pairs = all_pairs(checkpoint.model, num_movies, moment)
        for start in range(0, len(users), users_at_once):
            block = users[start : start + users_at_once]
            # Not clipped, as this would make all predictions above five stars equal.
            scores = pairs.scores(torch.from_numpy(block.astype(np.int64))).contiguous().numpy()
            best = [
                _best(order(int(user), scores[row]), seen.by(int(user)), max(top_n, candidates))
                for row, user in enumerate(block)
            ]
            if checkpoint.blend is not None:
                scores = _blended(checkpoint, block, best, scores, moment)
                best = [
                    _best(order(int(user), scores[row]), seen.by(int(user)), top_n)
                    for row, user in enumerate(block)
                ]
            for row, found in enumerate(each[:top_n] for each in best):
                movies[start + row, : len(found)] = found
                stars[start + row, : len(found)] = scores[row, found]
    return Ranking(movies, clipped(checkpoint, stars))


def _as_they_are(_user: int, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return scores


def _blended(
    checkpoint: Checkpoint,
    users: npt.NDArray[np.int64],
    best: Sequence[npt.NDArray[np.int64]],
    scores: npt.NDArray[np.float32],
    today: int,
) -> npt.NDArray[np.float32]:
    """``[B, M]`` predictions of the blend for the ``best`` movies of each user by its network,
    whose ``scores: [B, M]`` are; minus infinity for all others.
    """
    assert checkpoint.blend is not None
    row = np.repeat(np.arange(len(users)), [len(each) for each in best])
    movies = np.concatenate(best)
    rows = rows_to_predict(checkpoint.preprocessor, users[row], movies, np.array(today))
    network = torch.from_numpy(scores[row, movies])
    result = np.full_like(scores, -np.inf)
    blend = checkpoint.blend
    # Not clipped, as the network's.
    result[row, movies] = blend.combine(blend.each(network, rows)).numpy()
    return result


def clipped(checkpoint: Checkpoint, stars: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Predictions within the range of the training ratings, if they are in stars."""
    preprocessor = checkpoint.preprocessor
    if checkpoint.experiment.time_decay.apply_to != "target":
        return np.clip(stars, preprocessor.rating_min, preprocessor.rating_max)
    return stars


def _best(
    scores: npt.NDArray[np.float32], seen: npt.NDArray[np.int32], top_n: int
) -> npt.NDArray[np.int64]:
    """Positions of the highest ``scores: [M]`` except those ``seen``, in descending order."""
    unseen = scores.copy()
    unseen[seen] = -np.inf
    # All that reach the lowest of these scores, so that the order of the table decides ties.
    top_n = min(top_n, len(unseen))
    last = np.partition(unseen, -top_n)[-top_n]
    candidates = np.flatnonzero((unseen >= last) & np.isfinite(unseen))
    return candidates[np.argsort(-unseen[candidates], kind="stable")[:top_n]]
