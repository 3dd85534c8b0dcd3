"""Scores of ranked lists against held-out ratings: for each user, and their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from ncf.data.interactions import Interactions
from ncf.evaluation.diversity import Catalogue, Diversity
from ncf.evaluation.holdout import Holdout
from ncf.evaluation.ranking import RANKED, RELEVANT_STARS
from ncf.evaluation.ranking_metrics import DEFAULT_METRICS, RankingMetric
from ncf.evaluation.slices import by_range

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

Relevance = Literal["liked", "all"]
"""Which held-out movies are relevant: those with ``RELEVANT_STARS`` or more, or all."""

_ACTIVITY_EDGES: Final = (20, 100)
"""Boundaries of the numbers of known ratings by which users are divided. They are the same for all
data sets, unlike quantiles, so that slices can be compared between them. MovieLens has users with
20 ratings or more, so those below are the ones of whom only a part is known, such as new users."""
_POPULARITY_EDGES: Final = (3, 10, 50)
"""Boundaries of the numbers of training ratings by which movies are divided; the first slice has
those of which collaborative filtering knows next to nothing."""


@dataclass(frozen=True)
class UserScores:
    """One model's metrics for each of U users."""

    users: Integers
    """``[U]`` user ids."""
    num_relevant: Integers
    """``[U]`` relevant movies."""
    values: dict[str, Floats]
    """``[U]`` of each metric, by its name; NaN for users without a relevant movie."""

    @classmethod
    def of(
        cls,
        ranked: Integers,
        holdout: Holdout,
        relevance: Relevance,
        metrics: Sequence[RankingMetric] = DEFAULT_METRICS,
    ) -> UserScores:
        """Scores of ``ranked: [U, K]``, positions of movies or -1 for nothing, for the users of
        ``holdout``.

        Raises:
            ValueError: if there is not one ranking a user, or K is less than a metric needs.
        """
        return _user_scores(_Hits.of(ranked, holdout, relevance), holdout, metrics)

    @property
    def num_scored(self) -> int:
        """Users with a relevant movie."""
        return int((self.num_relevant > 0).sum())

    def mean(self, metric: str) -> float:
        """Mean over users with a relevant movie, of which there must be one."""
        return float(self.values[metric][self.num_relevant > 0].mean())


@dataclass(frozen=True)
class UserSlice:
    """Users with similar numbers of known ratings."""

    label: str
    num_users: int
    """Of those with a relevant movie."""
    ndcg: float
    """Their mean NDCG over the first ``RANKED`` movies."""


@dataclass(frozen=True)
class MovieSlice:
    """Relevant held-out ratings of movies with similar numbers of training ratings."""

    label: str
    num_ratings: int
    recall: float
    """Share of them whose movie is among the user's first ``RANKED``."""


@dataclass(frozen=True)
class MeanScores:
    """Metrics for one kind of relevant movies, as means over users who have a relevant movie."""

    num_users: int
    num_ratings: int
    """Relevant held-out ratings of all users."""
    metrics: dict[str, float]
    """Mean of each metric, by its name."""
    by_activity: tuple[UserSlice, ...]
    """Slices with users, by the number of known ratings."""
    by_popularity: tuple[MovieSlice, ...]
    """Slices with ratings, by the number of training ratings of the movie."""


@dataclass(frozen=True)
class ChoiceScores:
    """All figures of one model's rankings."""

    liked: MeanScores | None
    """With movies of ``RELEVANT_STARS`` or more as relevant; None if no user has one."""
    all: MeanScores | None
    """With all held-out movies as relevant; None if there are none."""
    diversity: Diversity | None
    """Of the first ``RANKED`` movies; None if none was ranked."""

    @classmethod
    def of(
        cls,
        ranked: Integers,
        holdout: Holdout,
        catalogue: Catalogue,
        metrics: Sequence[RankingMetric] = DEFAULT_METRICS,
    ) -> ChoiceScores:
        """Scores of ``ranked: [U, K]``, positions of movies or -1 for nothing, for the users of
        ``holdout``.

        Raises:
            ValueError: if there is not one ranking a user, or K is less than ``RANKED`` or a metric
                needs.
        """
        return cls(
            liked=_mean_scores(ranked, holdout, "liked", catalogue, metrics),
            all=_mean_scores(ranked, holdout, "all", catalogue, metrics),
            diversity=Diversity.of(ranked[:, :RANKED], catalogue),
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ChoiceScores:
        """Read what ``to_json`` made.

        Raises:
            pydantic.ValidationError: if a key is missing or has a value of another type.
        """
        return TypeAdapter(cls).validate_python(values)

    def to_json(self) -> dict[str, Any]:
        """The scores as values of JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Hits:
    """Rankings beside the relevant movies."""

    hits: Bools
    """``[U, K]`` whether the movie at each rank is relevant."""
    movies: Integers
    """``[N]`` the relevant movies, each once a user."""
    num_relevant: Integers
    """``[U]`` relevant movies of each user."""

    @classmethod
    def of(cls, ranked: Integers, holdout: Holdout, relevance: Relevance) -> _Hits:
        if len(ranked) != len(holdout):
            raise ValueError(
                f"found {len(ranked)} rankings, expected one for each of the {len(holdout)} users; "
                "rank for the users of the held-out ratings"
            )
        relevant = _relevant(holdout.held_out, relevance)
        # A user and a movie as one number, so that all users are looked up at once.
        keys = np.unique(relevant.rows * relevant.num_movies + relevant.movies)
        ranked_keys = np.arange(len(ranked))[:, None] * relevant.num_movies + ranked
        rows, movies = np.divmod(keys, relevant.num_movies)
        return cls(
            # The number of -1 would be that of another user's movie.
            hits=(ranked >= 0) & _contains(keys, ranked_keys),
            movies=movies,
            num_relevant=np.bincount(rows, minlength=len(ranked)),
        )


def _relevant(held_out: Interactions, relevance: Relevance) -> Interactions:
    return held_out if relevance == "all" else held_out.where(held_out.ratings >= RELEVANT_STARS)


def _contains(ascending: Integers, wanted: Integers) -> Bools:
    """Which numbers of ``wanted`` are in ``ascending: [N]``; in the shape of ``wanted``."""
    if not len(ascending):
        return np.zeros(wanted.shape, np.bool_)
    places = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return ascending[places] == wanted


def _user_scores(found: _Hits, holdout: Holdout, metrics: Sequence[RankingMetric]) -> UserScores:
    return UserScores(
        users=holdout.held_out.users,
        num_relevant=found.num_relevant,
        values={str(metric): metric.of(found.hits, found.num_relevant) for metric in metrics},
    )


def _mean_scores(
    ranked: Integers,
    holdout: Holdout,
    relevance: Relevance,
    catalogue: Catalogue,
    metrics: Sequence[RankingMetric],
) -> MeanScores | None:
    found = _Hits.of(ranked, holdout, relevance)
    scores = _user_scores(found, holdout, metrics)
    if not scores.num_scored:
        return None
    return MeanScores(
        num_users=scores.num_scored,
        num_ratings=len(found.movies),
        metrics={name: scores.mean(name) for name in scores.values},
        by_activity=_by_activity(found, holdout.known.counts),
        by_popularity=_by_popularity(found, ranked, catalogue.train_counts),
    )


def _by_activity(found: _Hits, known_counts: Integers) -> tuple[UserSlice, ...]:
    ndcg = RankingMetric("ndcg", RANKED).of(found.hits, found.num_relevant)
    has_relevant = found.num_relevant > 0
    way = by_range("known ratings", known_counts[has_relevant], _ACTIVITY_EDGES, "fewer than 20")
    counts = np.bincount(way.kinds, minlength=len(way.labels))
    sums = np.bincount(way.kinds, ndcg[has_relevant], len(way.labels))
    return tuple(
        UserSlice(way.labels[kind], int(counts[kind]), float(sums[kind] / counts[kind]))
        for kind in np.flatnonzero(counts)
    )


def _by_popularity(
    found: _Hits, ranked: Integers, train_counts: Integers
) -> tuple[MovieSlice, ...]:
    way = by_range("training ratings", train_counts, _POPULARITY_EDGES, "at most 2")
    size = len(way.labels)
    counts = np.bincount(way.kinds[found.movies], minlength=size)
    first = ranked[:, :RANKED][found.hits[:, :RANKED]]
    hits = np.bincount(way.kinds[first], minlength=size)
    return tuple(
        MovieSlice(way.labels[kind], int(counts[kind]), float(hits[kind] / counts[kind]))
        for kind in np.flatnonzero(counts)
    )
