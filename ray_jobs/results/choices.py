"""The result of a comparison of choice models: figures of every model, and tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from rich.table import Table

from foundation.storage import Storage
from ncf.config import SplitConfig
from ncf.evaluation.choice_scores import ChoiceScores, Relevance, UserScores
from ncf.evaluation.choice_significance import ChoiceDifference
from ncf.evaluation.holdout import Holdout
from ncf.evaluation.ranking_metrics import RankingMetric
from ray_jobs.results.metrics import DataOrigin
from ray_jobs.results.rankings import read_rankings

COLUMNS: tuple[tuple[str, str, Relevance], ...] = (
    ("NDCG@10", "ndcg@10", "liked"),
    ("recall@10", "recall@10", "liked"),
    ("NDCG@10, all", "ndcg@10", "all"),
)
"""Titles of the console's columns, with the metric and what is relevant."""

RELEVANCES: tuple[Relevance, ...] = ("liked", "all")


MEMBERS: Final = {
    "ease": "EASE",
    "network": "the network",
    "experts": "the product of EASE and the network",
}
"""What members of the choice model are called in reports."""


@dataclass(frozen=True)
class SeedResult:
    """The members of the compared choice model, trained with one seed."""

    name: str
    seed: int
    choice: dict[str, Any]
    """Settings, with the ridge, epoch and power that were chosen."""
    validation: dict[str, ChoiceScores] | None
    """Figures by member, of the training that chose them; None without validation users."""
    test: dict[str, ChoiceScores] | None
    """Figures by member; None without test users."""
    rankings: dict[str, str]
    """Files by member in the run's folder ``rankings``, of the test users' rankings."""

    @property
    def files(self) -> tuple[str, ...]:
        """``rankings``."""
        return tuple(self.rankings.values())


@dataclass(frozen=True)
class ChoiceResult:
    """One row of the comparison."""

    name: str
    detail: str
    kind: Literal["baseline", "model", "oracle"]
    """The oracle knows the truth, as it can on synthetic data alone: a ceiling."""
    test: tuple[ChoiceScores, ...]
    """Figures for the test users, of each seed; of a model without randomness, only one."""
    validation: tuple[ChoiceScores, ...]
    """The same for the validation users; empty without any."""
    rankings: tuple[str, ...] = ()
    """Files in the run's folder ``rankings``, one a seed: the test users' rankings."""

    @property
    def files(self) -> tuple[str, ...]:
        """``rankings``."""
        return self.rankings

    def values(self, metric: str, relevance: Relevance, *, validation: bool = False) -> list[float]:
        """A metric of each seed; none where nobody has a relevant movie."""
        scores = self.validation if validation else self.test
        found = (getattr(each, relevance) for each in scores)
        return [each.metrics[metric] for each in found if each]


@dataclass(frozen=True)
class ChoiceComparison:
    """Choice models and baselines on the same users."""

    entries: tuple[ChoiceResult, ...]
    served: str
    """Name of the model that recommends."""
    num_users: int
    """Users who were ranked for."""
    metric: str
    """By which settings were chosen on validation users."""
    refitted: bool
    """Whether models were trained again on training and validation rows."""
    scored: Literal["test", "validation"]
    """Whose users the figures are of."""
    num_given: int
    """Ratings of the scored rows that were given for each user."""
    min_ratings: int
    """Training ratings of a movie that was ranked."""
    differences: tuple[ChoiceDifference, ...]
    """Of the served model and each baseline; empty without test users."""

    def entry(self, name: str) -> ChoiceResult:
        """The row of a model."""
        (found,) = (entry for entry in self.entries if entry.name == name)
        return found

    def figure(
        self, entry: ChoiceResult, metric: str, relevance: Relevance
    ) -> tuple[float, float | None] | None:
        """Mean over seeds, and its standard deviation if there are several; None where nobody has
        a relevant movie."""
        values = entry.values(metric, relevance, validation=self.scored == "validation")
        if not values:
            return None
        return mean(values), stdev(values) if len(values) > 1 else None


def user_values(
    entry: ChoiceResult, metric: str, relevance: Relevance, holdout: Holdout, folder: Storage
) -> npt.NDArray[np.float64]:
    """``[S, U]`` a metric of each seed's rankings, read from the run's ``folder``."""
    parsed = RankingMetric.parse(metric)
    rankings = (read_rankings(folder / file) for file in entry.rankings)
    return np.stack(
        [UserScores.of(each, holdout, relevance, [parsed]).values[metric] for each in rankings]
    )


def choices_table(comparison: ChoiceComparison) -> Table:
    """The comparison for the console."""
    users = f"{comparison.num_users:,} {comparison.scored} users"
    result = Table(title=f"Rankings of all unseen movies, {users}")
    titles = [title for title, _, _ in COLUMNS]
    for column in ("model", "seeds", *titles, "coverage", "Gini"):
        result.add_column(column, justify="left" if column == "model" else "right")
    for entry in comparison.entries:
        scores = entry.validation if comparison.scored == "validation" else entry.test
        figures = [comparison.figure(entry, metric, kind) for _, metric, kind in COLUMNS]
        result.add_row(
            entry.name,
            str(len(scores)),
            *(shown(figure) for figure in figures),
            *(_diversity(scores, name) for name in ("coverage", "gini")),
        )
    return result


def shown(figure: tuple[float, float | None] | None) -> str:
    """A figure with its spread over seeds."""
    if figure is None:
        return "–"
    value, spread = figure
    return f"{value:.4f}" if spread is None else f"{value:.4f} ± {spread:.4f}"


def _diversity(scores: Sequence[ChoiceScores], name: str) -> str:
    values = [getattr(each.diversity, name) for each in scores if each.diversity]
    return f"{mean(values):.3f}" if values else "–"


def choice_differences_table(comparison: ChoiceComparison) -> Table:
    """Differences for the console."""
    result = Table(
        title=f"NDCG@10 of the {comparison.served} minus that of each baseline; intervals and p "
        "corrected for the number of baselines"
    )
    for column in CHOICE_DIFFERENCE_COLUMNS:
        is_words = column in ("baseline", "relevant", "better")
        result.add_column(column, justify="left" if is_words else "right")
    for difference in comparison.differences:
        result.add_row(*choice_difference_cells(difference))
    return result


CHOICE_DIFFERENCE_COLUMNS = (
    "baseline",
    "relevant",
    "difference",
    "95 % interval",
    "p",
    "better",
)

RELEVANT = {"liked": "4 stars or more", "all": "all"}
"""Kinds of relevant movies in words."""


def choice_difference_cells(difference: ChoiceDifference) -> tuple[str, ...]:
    """One difference as the cells of a table's row."""
    return (
        difference.second,
        difference.metric,
        f"{difference.value:+.4f}",
        f"{difference.corrected_low:+.4f} to {difference.corrected_high:+.4f}",
        f"{difference.holm_p:.4f}",
        difference.better or "undecided",
    )


@dataclass(frozen=True)
class ChoiceMetrics:
    """``choice_metrics.json``: figures of the final choice model."""

    dataset: str
    synthetic: bool
    config_hash: str
    """Fingerprint of everything that the model depends on."""
    member: str
    """The one that recommends."""
    choice: dict[str, Any]
    """Its settings, with the ridge, epoch and power that were chosen."""
    num_given: int
    """Ratings of the scored rows that were given for each user."""
    min_ratings: int
    """Training ratings of a movie that was ranked."""
    metric: str
    """By which settings were chosen."""
    refit_on_validation: bool
    validation: dict[str, ChoiceScores] | None
    """Figures by member, of the model trained without the validation rows."""
    test: dict[str, ChoiceScores] | None
    """Figures by member, of the final model; None without test users."""
    epochs: tuple[dict[str, Any], ...]
    """One record a step."""
    wall_seconds: float
    versions: dict[str, str]
    resources: dict[str, float]
    """Of the cluster."""
    hardware: dict[str, str]
    raw: DataOrigin
    split: SplitConfig
    seed: int

    @classmethod
    def read(cls, file: Storage) -> ChoiceMetrics:
        """Read a run's ``choice_metrics.json``."""
        return file.read_as(cls, "train the model again with --force")

    @property
    def summary(self) -> str:
        """The test figures in a line."""
        scores = self.test[self.member] if self.test else None
        parts = [
            f"NDCG@10 {found.metrics['ndcg@10']:.4f}{label}"
            for found, label in ((scores and scores.liked, ""), (scores and scores.all, " (all)"))
            if found
        ]
        return ", ".join(parts) or "no user with a relevant movie"
