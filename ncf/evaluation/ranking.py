"""Ranking metrics at a cut-off, over full rankings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

RANKED: Final = 10
"""Number of movies at the top of a ranking that are scored."""


RELEVANT_STARS: Final = 4.0
"""Lowest held-out rating of a relevant movie."""


@dataclass(frozen=True)
class SeenMovies:
    """Movies that each user has rated, in compressed sparse row format."""

    starts: npt.NDArray[np.int64]
    """``[U + 2]``: user index u has ``movies[starts[u]:starts[u + 1]]``."""
    movies: npt.NDArray[np.int32]
    """``[N]`` positions in the movie table."""

    @classmethod
    def of(
        cls, users: npt.NDArray[np.int32], movies: npt.NDArray[np.int32], num_users: int
    ) -> SeenMovies:
        """Build from rating rows ``users: [N]`` and ``movies: [N]``."""
        order = np.argsort(users, kind="stable")
        counts = np.bincount(users, minlength=num_users + 1)
        return cls(np.concatenate([[0], np.cumsum(counts)]), movies[order])

    def by(self, user: int) -> npt.NDArray[np.int32]:
        """Positions of the movies that the user with this index has rated."""
        return self.movies[self.starts[user] : self.starts[user + 1]]


@dataclass(frozen=True)
class RankingScores:
    """How many relevant movies are at the top of users' rankings.

    Means over users; relevance is binary.
    """

    ndcg: float
    """Discounted gain of the relevant movies among the first ``RANKED``, 1 / log2(1 + rank) each,
    divided by the maximum. Jarvelin and Kekalainen, 2002,
    https://doi.org/10.1145/582415.582418."""
    recall: float
    """Share of a user's relevant movies that are among the first ``RANKED``."""
    map: float
    """Mean precision at the ranks of the relevant movies, of which at most ``RANKED`` count; those
    not among the first ``RANKED`` have a precision of 0."""

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
