"""LightGBM on the residuals of the network: trees that correct its predictions.

The features are those of ``ncf.baselines.boosting`` and the network's prediction. Trees learn from
out-of-fold predictions, because a network errs less on the rows that it has learned from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from ncf.baselines.base import ratings_of
from ncf.baselines.boosting import (
    BoostedTrees,
    BoostingSettings,
    Examples,
    best_trees,
    corrected,
    described,
    features,
    grow,
    load_boosted_trees,
    shap_values,
    training_features,
)
from ncf.baselines.statistics import History
from ncf.baselines.tables import FeatureTable
from ncf.blending.stacking import StackedRows, StackedSpec
from ncf.data.batches import Batch
from ncf.data.preprocessor import Floats, Preprocessor

NAME: Final = "residual boosting"


@dataclass(frozen=True)
class ResidualBoosting:
    """The network's prediction plus the correction of boosted trees."""

    trees: BoostedTrees
    """Whose sums are the corrections."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        return NAME

    @property
    def detail(self) -> str:
        """Its settings in words."""
        return self.trees.detail

    def predict_from(self, network: torch.Tensor, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped, from the network's clipped ones: ``[B]``."""
        stars = network.double().numpy()
        table = self._features(stars, rows)
        return torch.from_numpy(corrected(self.trees.booster, table, stars))

    def corrections(self, network: torch.Tensor, rows: Batch) -> FeatureTable:
        """``[B, F + 1]`` SHAP values of the corrections, and their mean; see ``BoostedTrees``."""
        return shap_values(self.trees.booster, self._features(network.double().numpy(), rows))

    def fold_in(self, rows: Batch) -> ResidualBoosting:
        """The same trees for one new user with the ratings ``rows``."""
        return ResidualBoosting(self.trees.fold_in(rows))

    def save(self, folder: Path) -> None:
        """Write the trees, the settings, and the ratings for the features."""
        self.trees.save(folder)

    def _features(self, network: Floats, rows: Batch) -> FeatureTable:
        return _beside(features(self.trees.history, rows, self.trees.settings.with_times), network)


def load_residual_boosting(folder: Path, preprocessor: Preprocessor) -> ResidualBoosting:
    """Read what ``save`` wrote; raises what ``load_boosted_trees`` does."""
    return ResidualBoosting(load_boosted_trees(folder, preprocessor))


def tune(
    train: StackedRows,
    validation: StackedRows,
    preprocessor: Preprocessor,
    default: BoostingSettings,
    num_trials: int,
) -> BoostingSettings:
    """The settings with the lowest error on the validation rows."""
    history = History(train.rows, preprocessor)
    unseen = _beside(features(history, validation.rows, default.with_times), validation.network)
    return best_trees(
        _training_examples(train, preprocessor, default),
        Examples(unseen, ratings_of(validation.rows), validation.network),
        preprocessor,
        default,
        num_trials,
    )


def fit(
    train: StackedRows, preprocessor: Preprocessor, settings: BoostingSettings
) -> ResidualBoosting:
    """Grow trees on the residuals of the out-of-fold predictions."""
    examples = _training_examples(train, preprocessor, settings)
    booster = grow(examples, settings)
    detail = f"{described(settings, len(examples.table.names))}, on the network's residuals"
    history = History(train.rows, preprocessor)
    return ResidualBoosting(BoostedTrees(NAME, detail, settings, history, booster))


def _training_examples(
    train: StackedRows, preprocessor: Preprocessor, settings: BoostingSettings
) -> Examples:
    table = _beside(training_features(train.rows, preprocessor, settings), train.network)
    return Examples(table, ratings_of(train.rows), train.network)


def _beside(table: FeatureTable, network: Floats) -> FeatureTable:
    return table.beside(FeatureTable.of([("prediction of the network", network)]))


# No users are hidden, as they are of ``ncf.baselines.boosting`` for unknown users: the network's
# predictions for their rows would still be of known ones.
RESIDUAL_BOOSTING: Final = StackedSpec(NAME, tune, fit, BoostingSettings)
