"""LightGBM on features of ratings, the strongest baseline; needs the extra ``baselines``.

One variant uses users, movies and their ratings, the other also the times of ratings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import torch
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from foundation.storage import read_parquet
from ncf.baselines.base import (
    DEFAULT_TRIALS,
    Baseline,
    BaselineSpec,
    mean_squared_error,
    ratings_of,
)
from ncf.baselines.search import best_settings
from ncf.baselines.sessions import sessions
from ncf.baselines.statistics import History, statistics
from ncf.baselines.tables import FeatureTable, out_of_fold
from ncf.data.batches import Batch
from ncf.data.preprocessor import UNKNOWN, Floats, Preprocessor
from ncf.errors import CheckpointError

SPACE: Final[Mapping[str, BaseDistribution]] = {
    "leaves": IntDistribution(8, 128, log=True),
    "rows_per_leaf": IntDistribution(5, 200, log=True),
    "column_share": FloatDistribution(0.1, 0.8),
    "row_share": FloatDistribution(0.5, 1.0),
    "l2": FloatDistribution(0.1, 100.0, log=True),
}
"""Search space; without the learning rate, as lower ones are always more accurate and slower."""

_TRIAL_RATE: Final = 0.1
"""Learning rate of the search, which takes a third of the final one's time."""

_HIDDEN_USER_SHARE: Final = 0.1
"""Share of training rows with a hidden user, if validation rows have unknown users."""

_TREES: Final = "trees.txt"
_SETTINGS: Final = "settings.json"
_RATINGS: Final = "ratings.parquet"

_MAX_ROUNDS: Final = 3000
_PATIENCE: Final = 50
"""Rounds without a lower validation error after which training stops."""


@dataclass(frozen=True)
class BoostingSettings:
    """Settings of the boosted trees."""

    with_times: bool
    """Whether there are features of the times of ratings."""
    leaves: int = 31
    """Maximum leaves of a tree."""
    rows_per_leaf: int = 20
    """Minimum training rows in a leaf."""
    column_share: float = 0.5
    """Share of the features that each tree may use, drawn for every tree."""
    row_share: float = 0.8
    """Share of the training rows that each tree is grown on, drawn for every tree."""
    l2: float = 5.0
    """Ridge penalty of the leaves' values."""
    learning_rate: float = 0.03
    """Share of a tree's correction that is applied."""
    rounds: int = 500
    """Number of trees."""
    folds: int = 10
    """Number of folds; features of training rows are computed from the other folds' ratings."""
    hidden_user_share: float = 0.0
    """Share of the training rows whose user is hidden, so that trees learn to predict for unknown
    users."""
    seed: int = 0
    """Seed of the folds, and of the rows and columns that each tree is grown on."""


@dataclass(frozen=True)
class BoostedTrees(Baseline):
    """LightGBM's prediction from features of the rating history."""

    settings: BoostingSettings
    history: History
    """The ratings it was fitted on, from which features of new rows are computed."""
    booster: Any
    """``lightgbm.Booster``; it has no types, and may not be installed."""

    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""
        table = features(self.history, rows, self.settings.with_times)
        return torch.from_numpy(corrected(self.booster, table))

    def fold_in(self, rows: Batch) -> BoostedTrees:
        """The same trees for one new user with the ratings ``rows``: no tree is grown."""
        return replace(self, history=self.history.fold_in(rows))

    def contributions(self, rows: Batch) -> FeatureTable:
        """``[B, F + 1]`` what each feature adds to the predictions, and their mean: SHAP values.

        Lundberg et al., From local explanations to global understanding with explainable AI for
        trees, 2020.
        """
        return shap_values(self.booster, features(self.history, rows, self.settings.with_times))

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text, the settings, and the ratings for the features."""
        settings = {"name": self.name, "detail": self.detail, **asdict(self.settings)}
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2), encoding="utf-8")
        self.booster.save_model(folder / _TREES)
        pq.write_table(self.history.rows.to_arrow(), folder / _RATINGS, compression="zstd")


def shap_values(booster: Any, table: FeatureTable) -> FeatureTable:
    """``[B, F + 1]`` what each of F features adds to the sums of the trees, and their mean."""
    names = (*table.names, "mean of the trees")
    if not len(table.values):  # LightGBM refuses empty tables
        return FeatureTable(names, np.zeros((0, len(names)), np.float32))
    return FeatureTable(names, np.asarray(booster.predict(table.values, pred_contrib=True), "f4"))


def load_boosted_trees(folder: Path, preprocessor: Preprocessor) -> BoostedTrees:
    """Read what ``BoostedTrees.save`` wrote.

    Raises:
        CheckpointError: if LightGBM is not installed.
        ValueError: if a file is none that was written so.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise CheckpointError(
            "the model has boosted trees, which need LightGBM: pip install lightgbm"
        ) from error
    settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    name, detail = settings.pop("name"), settings.pop("detail")
    rows = Batch.from_arrow(read_parquet(folder / _RATINGS))
    try:
        booster = lightgbm.Booster(model_file=folder / _TREES)
    except lightgbm.basic.LightGBMError as error:
        raise ValueError(f"{_TREES} holds no trees: {error}") from error
    return BoostedTrees(
        name, detail, BoostingSettings(**settings), History(rows, preprocessor), booster
    )


@dataclass(frozen=True)
class Examples:
    """Rows for trees to learn from, or to be validated on."""

    table: FeatureTable
    ratings: Floats
    """``[B]`` stars."""
    start: Floats | None = None
    """``[B]`` predictions that the trees correct; by default they predict the ratings."""

    @property
    def labels(self) -> Floats:
        """``[B]`` what the trees learn."""
        return self.ratings if self.start is None else self.ratings - self.start


def features(history: History, rows: Batch, with_times: bool) -> FeatureTable:
    """All features of ``rows``, whose own ratings are not used."""
    rows = history.described(rows)
    table = statistics(history, rows)
    return table.beside(sessions(history, rows)) if with_times else table


def boosted_trees(
    rows: Batch, preprocessor: Preprocessor, settings: BoostingSettings
) -> BoostedTrees:
    """Grow trees on out-of-fold features of ``rows``."""
    table = training_features(rows, preprocessor, settings)
    booster = grow(Examples(table, ratings_of(rows)), settings)
    history, detail = History(rows, preprocessor), described(settings, len(table.names))
    return BoostedTrees(_name(settings.with_times), detail, settings, history, booster)


def described(settings: BoostingSettings, num_features: int) -> str:
    """The settings in words."""
    text = (
        f"{settings.rounds} trees of {settings.leaves} leaves with {settings.rows_per_leaf} rows "
        f"or more, each on {settings.column_share:.0%} of {num_features} features and "
        f"{settings.row_share:.0%} of the rows, ridge {settings.l2:.3g}, learning rate "
        f"{settings.learning_rate:g}, features out of {settings.folds} folds"
    )
    if settings.hidden_user_share:
        text += f", {settings.hidden_user_share:.0%} of the rows without their user"
    return text


def training_features(
    rows: Batch, preprocessor: Preprocessor, settings: BoostingSettings
) -> FeatureTable:
    """Features of training rows, computed without each row's own rating."""
    hidden = np.random.default_rng(settings.seed).random(len(rows)) < settings.hidden_user_share
    users = torch.where(torch.from_numpy(hidden), UNKNOWN, rows.users)

    def of_fold(others: Batch, fold: Batch) -> FeatureTable:
        return features(History(others, preprocessor), fold, settings.with_times)

    described = replace(rows, users=users)
    return out_of_fold(rows, described, of_fold, settings.folds, settings.seed)


def best_boosting(
    train: Batch,
    validation: Batch | None,
    preprocessor: Preprocessor,
    num_trials: int = DEFAULT_TRIALS,
    *,
    with_times: bool,
) -> BoostingSettings:
    """The settings with the lowest error on the validation rows, as ``best_trees`` finds them."""
    if validation is None:
        return BoostingSettings(with_times)
    default = default_settings(validation, with_times=with_times)
    table = training_features(train, preprocessor, default)
    unseen = features(History(train, preprocessor), validation, with_times)
    return best_trees(
        Examples(table, ratings_of(train)),
        Examples(unseen, ratings_of(validation)),
        preprocessor,
        default,
        num_trials,
    )


def default_settings(validation: Batch, *, with_times: bool) -> BoostingSettings:
    """Settings that a search starts from."""
    default = BoostingSettings(with_times)
    if (validation.users == UNKNOWN).any():
        return replace(default, hidden_user_share=_HIDDEN_USER_SHARE)
    return default


def best_trees(
    train: Examples,
    validation: Examples,
    preprocessor: Preprocessor,
    default: BoostingSettings,
    num_trials: int,
) -> BoostingSettings:
    """The settings with the lowest error on ``validation``, with the best number of trees.

    The number of trees is that of one more fit with the final learning rate.
    """

    def stopped_early(settings: BoostingSettings) -> tuple[float, BoostingSettings]:
        booster = grow(train, replace(settings, rounds=_MAX_ROUNDS), validation)
        stars = corrected(booster, validation.table, validation.start)
        error = mean_squared_error(stars, validation.ratings, preprocessor)
        return error, replace(settings, rounds=booster.best_iteration)

    quick = replace(default, learning_rate=_TRIAL_RATE)
    best = best_settings(quick, SPACE, lambda each: stopped_early(each)[0], num_trials)
    return stopped_early(replace(best, learning_rate=default.learning_rate))[1]


def grow(examples: Examples, settings: BoostingSettings, validation: Examples | None = None) -> Any:
    """Grow trees; with validation rows, stop when their error no longer falls."""
    import lightgbm

    data = lightgbm.Dataset(examples.table.values, examples.labels)
    valid_sets, callbacks = [], []
    if validation:
        valid_sets = [data.create_valid(validation.table.values, validation.labels)]
        callbacks = [lightgbm.early_stopping(_PATIENCE, verbose=False)]
    parameters = {
        "objective": "regression",
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.rows_per_leaf,
        "feature_fraction": settings.column_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1,
        "lambda_l2": settings.l2,
        "learning_rate": settings.learning_rate,
        "seed": settings.seed,
        # The same trees on any machine and with any number of threads.
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": torch.get_num_threads(),
        "verbosity": -1,
    }
    return lightgbm.train(
        parameters, data, settings.rounds, valid_sets=valid_sets, callbacks=callbacks
    )


def corrected(booster: Any, table: FeatureTable, start: Floats | None = None) -> Floats:
    """``[B]`` sums of the trees' values and of the predictions ``start: [B]`` that they correct."""
    if not len(table.values):  # LightGBM refuses empty tables
        return np.zeros(0)
    sums = booster.predict(table.values, num_threads=torch.get_num_threads())
    stars = np.asarray(sums, dtype=np.float64)
    return stars if start is None else stars + start


def _name(with_times: bool) -> str:
    return "LightGBM, with rating times" if with_times else "LightGBM"


def _spec(with_times: bool) -> BaselineSpec[BoostingSettings]:
    tune = partial(best_boosting, with_times=with_times)
    return BaselineSpec(_name(with_times), tune, boosted_trees)


BOOSTING: Final = _spec(with_times=False)
BOOSTING_WITH_TIMES: Final = _spec(with_times=True)
