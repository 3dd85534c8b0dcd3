"""The best movies for users, from a trained model, and how good such rankings are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ncf.checkpoint import Checkpoint
from ncf.grid import grid

_PAIRS_AT_ONCE = 262_144
"""(user, movie) pairs in one forward pass: bounds memory at any catalogue size."""

RANKED: Final = 10
"""Movies at the top of a ranking that are scored."""

RELEVANT_STARS: Final = 4.0
"""A held-out rating from which on a movie should have been recommended."""

_PAIRS_TO_SCORE: Final = 50_000_000
"""Most (user, movie) pairs that are predicted to score rankings: all of ml-1m's, and of larger
releases those of some hundred users, which suffice for two digits."""


@dataclass(frozen=True)
class SeenMovies:
    """Which movies each user has rated, as compressed rows."""

    starts: npt.NDArray[np.int64]
    """``[U + 2]``: user index u has ``movies[starts[u]:starts[u + 1]]``."""
    movies: npt.NDArray[np.int32]
    """``[N]`` positions in the movie table."""

    @classmethod
    def of(
        cls, users: npt.NDArray[np.int32], movies: npt.NDArray[np.int32], num_users: int
    ) -> SeenMovies:
        """From rating rows ``users: [N]`` and ``movies: [N]``."""
        order = np.argsort(users, kind="stable")
        counts = np.bincount(users, minlength=num_users + 1)
        return cls(np.concatenate([[0], np.cumsum(counts)]), movies[order])

    def by(self, user: int) -> npt.NDArray[np.int32]:
        """Positions of the movies that a user index has rated."""
        return self.movies[self.starts[user] : self.starts[user + 1]]


@dataclass(frozen=True)
class Ranking:
    """The best unseen movies of some users, best first."""

    movies: npt.NDArray[np.int64]
    """``[B, N]`` positions in the movie table; -1 past the last unseen movie."""
    stars: npt.NDArray[np.float32]
    """``[B, N]`` predictions in the training target's unit, stars unless that is the decayed
    rating; NaN past the last unseen movie."""


@dataclass(frozen=True)
class RankingScores:
    """How many of the movies that users came to like stand at the top of their rankings.

    Means over users; a movie is relevant or not.
    """

    ndcg: float
    """Discounted gain of the relevant movies among the first ``RANKED``, 1 / log2(1 + rank) each,
    divided by the most that could be had. Jarvelin and Kekalainen, 2002,
    https://doi.org/10.1145/582415.582418."""
    recall: float
    """Share of a user's relevant movies that are among the first ``RANKED``."""
    map: float
    """Mean precision at the ranks of the relevant movies among the first ``RANKED``, where those
    that are not among them count as 0, as far as there was room for them."""

    @classmethod
    def of(
        cls, ranked: npt.NDArray[np.int64], users: npt.NDArray[np.int64], relevant: SeenMovies
    ) -> RankingScores:
        """Scores of ``ranked: [B, RANKED]``, the positions of movies or -1 for nothing, for
        ``users: [B]``, each of whom has a relevant movie.
        """
        hits = np.stack(
            [np.isin(row, relevant.by(int(u))) for row, u in zip(ranked, users, strict=True)]
        )
        counts = np.diff(relevant.starts)[users]
        possible = np.minimum(counts, RANKED)
        ranks = np.arange(1, hits.shape[1] + 1)
        gains = 1 / np.log2(1 + np.arange(1, RANKED + 1))
        ndcg = hits @ gains[: len(ranks)] / np.cumsum(gains)[possible - 1]
        precision = np.cumsum(hits, axis=1) / ranks
        return cls(
            ndcg=float(ndcg.mean()),
            recall=float((hits.sum(axis=1) / counts).mean()),
            map=float(((precision * hits).sum(axis=1) / possible).mean()),
        )


def score_rankings(
    checkpoint: Checkpoint, seen: SeenMovies, relevant: SeenMovies
) -> dict[str, Any]:
    """Scores of the model's rankings, beside those of the same movies by number of ratings.

    Each user's ranking is of all movies of the catalogue but those in ``seen``, by the predicted
    rating; the popularity is the number of training ratings. Only users with an index of their own
    and a ``relevant`` movie count; if these are too many for the size of the catalogue, some are
    drawn. Without any, there are no scores.
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
    at_most = max(1, _PAIRS_TO_SCORE // len(checkpoint.fitted.movies))
    if len(users) > at_most:
        users = np.sort(np.random.default_rng(0).choice(users, at_most, replace=False))
    result["num_users_ranked"] = len(users)
    if len(users):
        popularity = checkpoint.fitted.movies.train_counts.astype(np.float32)
        by_count = np.full((len(users), RANKED), -1, dtype=np.int64)
        for row, user in enumerate(users):
            best = _best(popularity, seen.by(int(user)), min(RANKED, len(popularity)))
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
) -> Ranking:
    """The ``top_n`` movies with the highest predicted rating among those a user has not rated.

    ``users: [B]`` are user indices; ties go to the movie that comes first in the table. Movies
    without any training rating are candidates like all others: their features speak for them.
    ``today`` is when a model that looks at times is asked, in seconds since 1970 UTC; by default
    the day from which ages count.
    """
    num_movies = len(checkpoint.fitted.movies)
    top_n = min(top_n, num_movies)
    movies = np.full((len(users), top_n), -1, dtype=np.int64)
    stars = np.full((len(users), top_n), np.nan, dtype=np.float32)
    users_at_once = max(1, _PAIRS_AT_ONCE // num_movies)
    with torch.inference_mode():
        reference = checkpoint.fitted.decay_reference
        pairs = grid(checkpoint.model, num_movies, reference if today is None else today)
        for start in range(0, len(users), users_at_once):
            block = users[start : start + users_at_once]
            # Not clipped: clipping would make ties at five stars.
            scores = pairs.scores(torch.from_numpy(block.astype(np.int64))).contiguous().numpy()
            for row, user in enumerate(block):
                best = _best(scores[row], seen.by(int(user)), top_n)
                movies[start + row, : len(best)] = best
                stars[start + row, : len(best)] = scores[row, best]
    fitted = checkpoint.fitted
    if checkpoint.experiment.time_decay.apply_to != "target":
        stars = np.clip(stars, fitted.rating_min, fitted.rating_max)
    return Ranking(movies, stars)


def _best(
    scores: npt.NDArray[np.float32], seen: npt.NDArray[np.int32], top_n: int
) -> npt.NDArray[np.int64]:
    """Positions of the highest ``scores: [M]`` but for those ``seen``, the highest first."""
    unseen = scores.copy()
    unseen[seen] = -np.inf
    # All that reach the last place's score, so that ties are decided by the order of the table.
    last = np.partition(unseen, -top_n)[-top_n]
    candidates = np.flatnonzero((unseen >= last) & np.isfinite(unseen))
    return candidates[np.argsort(-unseen[candidates], kind="stable")[:top_n]]
