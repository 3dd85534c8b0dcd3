"""A prepared data set as choice models see it: training ratings, and users to rank movies for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from ncf.data.dataset import PreparedDataset
from ncf.data.interactions import Interactions
from ncf.evaluation.choice_scores import ChoiceScores
from ncf.evaluation.diversity import Catalogue
from ncf.evaluation.full_ranking import rank
from ncf.evaluation.holdout import Holdout
from ncf.evaluation.ranking_metrics import CUTOFFS
from ncf.models.choice.base import ChoiceModel

LENGTH: Final = max(CUTOFFS)
"""Movies of a ranking that are scored."""

Split = Literal["validation", "test"]


@dataclass(frozen=True)
class ChoiceData:
    """Ratings that are read when they are first used.

    The known ratings of test users are those of the training and validation rows.
    """

    prepared: PreparedDataset
    num_given: int = 0
    """Of each user's held-out ratings, so many are known; see ``Holdout.of``."""
    min_ratings: int = 0
    """Training ratings of a movie that is ranked. Held-out ratings of other movies cannot be
    found, and count as such."""
    max_validation_users: int | None = None
    """So many of the validation users are drawn; all by default."""

    @cached_property
    def train(self) -> Interactions:
        """Training ratings."""
        return Interactions.read(self.prepared, ["train"])

    @property
    def held_out(self) -> Interactions:
        """Ratings that nothing is fitted to: validation and test rows."""
        return Interactions.read(self.prepared, ["validation", "test"])

    @cached_property
    def validation(self) -> Holdout | None:
        """Validation users; None if there are none."""
        users = self._holdout(["train"], "validation")
        if users is None or self.max_validation_users is None:
            return users
        return users.drawn(self.max_validation_users)

    @cached_property
    def test(self) -> Holdout | None:
        """Test users; None if there are none."""
        return self._holdout(["train", "validation"], "test")

    def of(self, split: Split) -> Holdout | None:
        """The users of a split."""
        return self.validation if split == "validation" else self.test

    @cached_property
    def catalogue(self) -> Catalogue:
        """The movies."""
        return Catalogue.of(self.train, self.prepared.preprocessor.movies.genres)

    @cached_property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """``[M]`` movies that are ranked."""
        return self.catalogue.train_counts >= self.min_ratings

    def rank(self, model: ChoiceModel, holdout: Holdout, at: int = LENGTH) -> npt.NDArray[np.int64]:
        """``[B, at]`` positions of the first movies of each user's ranking."""
        return rank(model, holdout.known, at, self.allowed)

    def score(self, ranked: npt.NDArray[np.int64], holdout: Holdout) -> ChoiceScores:
        """All figures of ``ranked: [B, LENGTH]``."""
        return ChoiceScores.of(ranked, holdout, self.catalogue)

    def _holdout(self, known: Sequence[str], held_out: Split) -> Holdout | None:
        if not self.prepared.manifest.counts[held_out]:
            return None
        ratings = Interactions.read(self.prepared, known)
        of_split = Interactions.read(self.prepared, [held_out])
        holdout = Holdout.of(ratings, of_split, self.num_given)
        return holdout if len(holdout) else None
