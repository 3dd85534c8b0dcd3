"""Metrics of rankings with binary relevance, one value a user.

A metric is a function here and a line in ``ncf.registry.RANKING_METRICS``. It is called with
``hits: [B, K]``, whether the movie at each of the first K ranks is relevant, and
``num_relevant: [B]``, how many relevant movies each user has, and returns ``[B]``. It is NaN for
users without a relevant movie, who have no right answer and are left out of means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ncf.registry import RANKING_METRICS, implementation

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CUTOFFS: Final = (5, 10, 20)
"""Numbers of movies at the top of a ranking that are scored."""

_WRITTEN: Final = re.compile(r"([^@]*)@([1-9][0-9]*)")


@dataclass(frozen=True)
class RankingMetric:
    """A metric over the first movies of each ranking, written ``ndcg@10``."""

    name: str
    """A key of ``ncf.registry.RANKING_METRICS``."""
    at: int
    """Number of movies at the top that are scored."""

    @classmethod
    def parse(cls, text: str) -> RankingMetric:
        """The inverse of ``str``.

        Raises:
            ValueError: if the name is not one of a metric, or the cut-off not a positive whole
                number.
        """
        written = _WRITTEN.fullmatch(text)
        if written is None or written[1] not in RANKING_METRICS:
            raise ValueError(
                f"{text!r} is not a metric of rankings, expected a name, @ and a positive whole "
                f"number, such as ndcg@10. Use one of the names {', '.join(RANKING_METRICS)}."
            )
        return cls(written[1], int(written[2]))

    def __str__(self) -> str:
        return f"{self.name}@{self.at}"

    def of(self, hits: Bools, num_relevant: Integers) -> Floats:
        """``[B]`` values, of the first ``at`` ranks of ``hits: [B, K]``.

        Raises:
            ValueError: if K is less than ``at``.
        """
        if hits.shape[1] < self.at:
            raise ValueError(
                f"the rankings have {hits.shape[1]} movies, but {self} needs {self.at} of them; "
                "rank more movies"
            )
        values: Floats = implementation(RANKING_METRICS[self.name])(
            hits[:, : self.at], num_relevant
        )
        return values


DEFAULT_METRICS: Final = tuple(
    RankingMetric(name, at) for name in RANKING_METRICS for at in CUTOFFS
)
"""All metrics at all of ``CUTOFFS``."""


def ndcg(hits: Bools, num_relevant: Integers) -> Floats:
    """Normalised discounted cumulative gain: the sum of 1 / log2(1 + rank) over the hits, divided
    by its maximum, that of min(n, K) hits at the first ranks for n relevant movies.

    K. Jarvelin and J. Kekalainen, Cumulated Gain-Based Evaluation of IR Techniques, ACM TOIS 20,
    2002, https://doi.org/10.1145/582415.582418; the discount as in C. Burges et al., Learning to
    Rank Using Gradient Descent, ICML 2005, https://doi.org/10.1145/1102351.1102363.
    """
    gains = 1 / np.log2(1 + _ranks(hits))
    maxima = np.concatenate([[np.nan], np.cumsum(gains)])
    values: Floats = hits @ gains / maxima[np.minimum(num_relevant, hits.shape[1])]
    return values


def recall(hits: Bools, num_relevant: Integers) -> Floats:
    """Share of the user's relevant movies that are among the first K.

    Divided by all n relevant movies, so that more than K of them cannot all be found: C. Manning,
    P. Raghavan and H. Schutze, Introduction to Information Retrieval, 2008, section 8.3.
    """
    return hits.sum(axis=1) / _positive(num_relevant)


def average_precision(hits: Bools, num_relevant: Integers) -> Floats:
    """Sum of the precision at the rank of each hit, divided by min(n, K) for n relevant movies.

    The mean over users is MAP@K. Divided by min(n, K) instead of n, so that K hits give 1, as in
    B. McFee, T. Bertin-Mahieux, D. Ellis and G. Lanckriet, The Million Song Dataset Challenge,
    WWW 2012, https://doi.org/10.1145/2187980.2188222.
    """
    precision = np.cumsum(hits, axis=1) / _ranks(hits)
    possible = np.minimum(num_relevant, hits.shape[1])
    values: Floats = (precision * hits).sum(axis=1) / _positive(possible)
    return values


def hit(hits: Bools, num_relevant: Integers) -> Floats:
    """1 if a relevant movie is among the first K, else 0.

    The mean over users is the hit rate: M. Deshpande and G. Karypis, Item-Based Top-N
    Recommendation Algorithms, ACM TOIS 22, 2004, https://doi.org/10.1145/963770.963776.
    """
    return np.where(num_relevant > 0, hits.any(axis=1).astype(np.float64), np.nan)


def reciprocal_rank(hits: Bools, num_relevant: Integers) -> Floats:
    """1 / rank of the first relevant movie; 0 if it is not among the first K.

    The mean over users is MRR@K: E. Voorhees, The TREC-8 Question Answering Track Report, 1999.
    """
    # The largest of 1 / rank over the hits is that of the first.
    return np.where(num_relevant > 0, (hits / _ranks(hits)).max(axis=1), np.nan)


def _ranks(hits: Bools) -> Integers:
    """``[K]``: 1, 2, 3, ..."""
    return np.arange(1, hits.shape[1] + 1)


def _positive(counts: Integers) -> Floats:
    """``counts: [B]`` with NaN for 0, so that dividing by them gives NaN."""
    return np.where(counts > 0, counts, np.nan)
