"""The content of ``metrics.json``: the errors of the final model, and what it was trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from foundation.storage import Storage
from ncf.config import SplitConfig
from ncf.evaluation.ranking import RankingScores
from ncf.evaluation.uncertainty import UncertaintyScores
from ray_jobs.results.undefined import Metric, Metrics


@dataclass(frozen=True)
class ErrorMetrics:
    """Errors over the rows of a split."""

    rmse: Metric
    mae: Metric
    r2: Metric
    num_ratings: int


@dataclass(frozen=True)
class SplitMetrics(ErrorMetrics):
    """Errors in stars."""

    decayed: ErrorMetrics
    """Of predictions and ratings multiplied by the row's time-decay weight."""


@dataclass(frozen=True)
class MemberMetrics:
    """One member of a blend, by itself."""

    name: str
    """``network``, or the name of a baseline."""
    weight: float
    """In the blend."""
    validation: SplitMetrics
    """Of the member that was fitted without the validation rows."""
    test: SplitMetrics
    """Of the member in the final model."""


@dataclass(frozen=True)
class RankingMetrics:
    """Rankings of the movies that a user has not rated, by the user's test rows."""

    at: int
    """Length of the rankings."""
    relevant_stars: float
    num_users: int
    """Users with a relevant movie."""
    model: RankingScores | None
    """None if no user has a relevant movie."""
    popularity: RankingScores | None
    """Of the same movies by their number of training ratings."""
    num_users_ranked: int
    """Users that were scored."""


@dataclass(frozen=True)
class DataOrigin:
    """What is known of the raw data."""

    tmdb_coverage: dict[str, int]
    """Movies by status; empty if TMDb was not used."""
    notices: tuple[str, ...]
    """Attributions, and other notices to the user."""
    attribution: tuple[str, ...] | None = None
    """Texts that must be shown wherever the model is used; None for a run of an earlier release."""
    licence: str | None = None
    """The terms of the ratings; None for a run of an earlier release."""


@dataclass(frozen=True, kw_only=True)
class RunMetrics:
    """``metrics.json``, with its keys in the order of the file."""

    dataset: str
    synthetic: bool
    split: SplitConfig
    seed: int
    config_hash: str
    """Of everything that the model depends on: data, preparation and configuration."""
    loss: str
    tuned_parameters: dict[str, Any]
    """Settings that the search chose, by their keys; empty without a search."""
    best_epoch: int
    refit_on_validation: bool
    streamed: tuple[str, ...]
    """Splits whose rows were not held in memory."""
    validation: SplitMetrics | None
    """Of the model that was trained without the validation rows, and of a blend by weights that
    were fitted to other validation rows; None if there are none."""
    test: SplitMetrics
    """Of the final model."""
    epochs: tuple[Metrics, ...]
    """One flat record an epoch, see ``ncf.training.trainer.Epoch.as_dict``."""
    wall_seconds: float
    """Of the training."""
    versions: dict[str, str]
    resources: dict[str, float]
    """CPUs and GPUs of the cluster."""
    hardware: dict[str, str] = field(default_factory=dict)
    """Of the driver's machine and the cluster; empty for a run of an earlier release."""
    raw: DataOrigin
    ranking: RankingMetrics
    members: tuple[MemberMetrics, ...] = ()
    """Of a blend, by themselves; ``validation`` and ``test`` are the blend's."""
    uncertainty: UncertaintyScores | None = None
    """Of standard deviations and intervals on the test rows; None without validation rows."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunMetrics:
        """Read what ``to_json`` made.

        Raises:
            pydantic.ValidationError: if a key is missing or has a value of another type.
        """
        return TypeAdapter(cls).validate_python(values)

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return asdict(self) | {"split": self.split.model_dump(mode="json")}

    @classmethod
    def read(cls, file: Storage) -> RunMetrics:
        """Read a run's ``metrics.json``."""
        return file.read_as(cls, "train the model again with --force")
