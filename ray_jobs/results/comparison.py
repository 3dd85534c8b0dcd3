"""The result of a comparison: errors of every model, and tables of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np
import numpy.typing as npt
from rich.table import Table

from foundation.storage import Storage
from ncf.evaluation.assessment import Assessment
from ncf.evaluation.predictions import Predictions
from ncf.evaluation.significance import Difference
from ray_jobs.results import undefined
from ray_jobs.results.undefined import Metrics

METRICS = ("rmse", "mae", "r2")

Kind = Literal["baseline", "model", "ensemble", "blend", "given"]
"""An ensemble is the mean prediction of a model's seeds, a blend a weighted sum of several models',
and of what is given only predictions are known."""
Split = Literal["test", "validation"]


@dataclass(frozen=True)
class ModelResult:
    """One row of the comparison."""

    name: str
    detail: str
    kind: Kind
    test: tuple[Metrics, ...]
    """Test metrics of each seed; of a baseline without randomness, only one."""
    validation: tuple[Metrics, ...]
    """Validation metrics of each seed; empty without a validation split."""
    best_epochs: tuple[int, ...] = ()
    curves: tuple[tuple[Metrics, ...], ...] = ()
    """Epoch records of each seed."""
    predictions: tuple[str, ...] = ()
    """Files in the run's folder ``predictions``, one a seed: predictions for the test rows."""

    validation_predictions: tuple[str, ...] = ()
    """Files there with predictions for the validation rows, of models and baselines that are
    members of a blend: one a seed, or one of a baseline."""

    tried: int = 0
    """Settings that were tried in this comparison to choose those of the entry, of a blend those of
    all its members; 0 if they are fixed."""

    @property
    def files(self) -> tuple[str, ...]:
        """``predictions`` and ``validation_predictions``."""
        return (*self.predictions, *self.validation_predictions)

    def figure(
        self, metric: str, scale: str, *, validation: bool = False
    ) -> tuple[float, float | None]:
        """Mean over seeds of a test metric, and its standard deviation if there are several.

        ``scale`` is ``stars`` or ``decayed``. With ``validation``, the metric on the validation
        rows, if there are any.
        """
        of_seeds = (self.validation if validation else ()) or self.test
        values = [s["decayed"][metric] if scale == "decayed" else s[metric] for s in of_seeds]
        return undefined.mean_and_spread(values)


@dataclass(frozen=True)
class Comparison:
    """Models and baselines on the same rows."""

    entries: tuple[ModelResult, ...]
    scale: str
    """The scale that the models were trained on: ``stars``, or ``decayed`` in the original mode."""
    num_test: int
    """Test rows; 0 if none was read."""
    trials_per_loss: int
    """Trials of each loss's own search; 0 if all losses share one configuration."""
    refitted: bool
    """Whether the models were trained again on the validation rows too before they were scored."""
    model: str
    """The model that the report shows in detail: the best on the validation rows, or the first."""
    baseline: str
    """The baseline that models are compared with: the best on the validation rows, or on the test
    rows if there are no validation rows."""
    assessment: Assessment
    """Differences with intervals, errors by slice and calibration; empty without test errors."""
    fixed: bool = False
    """Whether fixed configurations are compared, instead of losses."""
    against: tuple[str, ...] = ()
    """Names that all others are compared with; none if models are compared with each other and with
    ``baseline``."""
    scored: Split = "test"
    """The rows that the errors are of; ``validation`` in a comparison for choosing settings."""
    num_validation: int = 0
    """Validation rows."""
    named_differences: tuple[tuple[str, str], ...] = ()
    """The only pairs whose differences are tested; none if ``against`` decides."""
    num_train: int = 0
    """Training rows of what is scored."""

    @property
    def num_scored(self) -> int:
        """Rows that the errors are of."""
        return self.num_test if self.scored == "test" else self.num_validation

    def num_seeds(self, entry: ModelResult) -> int:
        """How many seeds the errors of an entry are the mean of."""
        return len(entry.test if self.scored == "test" else entry.validation)

    def figure(
        self, entry: ModelResult, metric: str, scale: str | None = None
    ) -> tuple[float, float | None]:
        """Mean over seeds of a metric on the scored rows, and its standard deviation."""
        is_validation = self.scored == "validation"
        return entry.figure(metric, scale or self.scale, validation=is_validation)


def pairs(
    entries: Sequence[ModelResult],
    baseline: str,
    against: Sequence[str] = (),
    named: Sequence[tuple[str, str]] = (),
) -> list[tuple[str, str]]:
    """Names of those whose errors are compared.

    Those that are ``named``, if any are. Else all others with each one of ``against``; without any,
    models, blends, ensembles and given predictions with ``baseline``, models with each other, and
    models and blends with given predictions. In that case blends and ensembles are not compared
    with models or with each other. That an ensemble errs less than
    its own seeds do on average is certain for the RMSE and needs no test; and what other seeds
    would have given, which matters between models, is not known of an ensemble, as there is only
    one.
    """
    if named:
        return list(named)
    if against:
        return [
            (entry.name, reference)
            for number, reference in enumerate(against)
            for entry in entries
            if entry.name not in against[: number + 1]
        ]
    models = [entry.name for entry in entries if entry.kind == "model"]
    ensembles = [entry.name for entry in entries if entry.kind in ("ensemble", "blend")]
    given = [entry.name for entry in entries if entry.kind == "given"]
    ours = [entry.name for entry in entries if entry.kind in ("model", "blend")]
    return [
        *((name, baseline) for name in (*models, *ensembles, *given)),
        *combinations(models, 2),
        *product(ours, given),
    ]


def predicted(entry: ModelResult, scale: str, folder: Storage) -> npt.NDArray[np.float32]:
    """``[S, N]`` predictions of each seed for the test rows, read from the run's ``folder``."""
    tables = ((folder / name).read_table() for name in entry.predictions)
    return np.stack([Predictions.from_arrow(table).on(scale) for table in tables])


def table(comparison: Comparison, of_what: str = "") -> Table:
    """The comparison for the console; its title begins with ``of_what``."""
    scale = "rating in stars" if comparison.scale == "stars" else "rating x decay weight"
    rows = f"{comparison.num_scored:,} rows"
    title = f"{of_what}{comparison.scored.capitalize()} errors, {scale}, {rows}"
    result = Table(title=title)
    for column in ("model", "tried", "seeds", "RMSE", "MAE", "R²"):
        result.add_column(column, justify="left" if column == "model" else "right")
    for entry in comparison.entries:
        figures = [shown(*comparison.figure(entry, metric)) for metric in METRICS]
        tried, seeds = shown_budget(entry), str(comparison.num_seeds(entry))
        result.add_row(entry.name, tried, seeds, *figures)
    return result


def shown_budget(entry: ModelResult) -> str:
    """The number of settings that were tried, for a table."""
    if entry.kind == "given":
        return "given"
    return f"{entry.tried:,}" if entry.tried else "fixed"


def differences_table(differences: Sequence[Difference]) -> Table:
    """Differences of the RMSE for the console; the report has those of the MAE."""
    result = Table(
        title="Differences of the RMSE; intervals and p corrected for "
        f"{len(differences)} comparisons, those of the MAE among them"
    )
    for column in DIFFERENCE_COLUMNS:
        result.add_column(column, justify="left" if column == DIFFERENCE_COLUMNS[0] else "right")
    for difference in differences:
        if difference.metric == "rmse":
            result.add_row(*difference_cells(difference))
    return result


DIFFERENCE_COLUMNS = ("first − second", "difference", "95 % interval", "p", "better")


def difference_cells(difference: Difference) -> tuple[str, ...]:
    """One difference as the cells of a table's row."""
    return (
        f"{difference.first} − {difference.second}",
        f"{difference.value:+.4f}",
        f"{difference.corrected_low:+.4f} to {difference.corrected_high:+.4f}",
        f"{difference.holm_p:.4f}",
        difference.better or "undecided",
    )


def shown(value: float, spread: float | None) -> str:
    """A figure with its spread over seeds."""
    is_alone = spread is None or math.isnan(value)
    return undefined.shown(value) + ("" if is_alone else f" ± {undefined.shown(spread or 0.0)}")
