"""Out-of-fold predictions of a network for its own training rows.

What is learned on top of a network, for example trees that correct it, needs to see the errors that
it makes on new rows. Those on its training rows are smaller: even a Gaussian process that leaves
out just the predicted rating has learned its parameters from it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from ncf.config import ExperimentConfig
from ncf.data.batches import Batch
from ncf.data.preprocessor import Floats, Integers, Preprocessor
from ncf.evaluation.predictions import predict
from ncf.models.targets import Objective
from ncf.training.loop import fit
from ncf.training.trainer import build

FOLDS: Final = 5


def fold_of_rows(num_rows: int, seed: int) -> Integers:
    """``[N]`` the fold of each training row, from 0 to ``FOLDS`` - 1, at random."""
    return np.random.default_rng(seed).permutation(num_rows) % FOLDS


def predict_fold(
    experiment: ExperimentConfig, preprocessor: Preprocessor, rows: Batch, number: int
) -> Floats:
    """``[F]`` clipped stars for the F training rows of fold ``number``, in their order, by a
    network that is trained on all other folds' rows, for all epochs that ``experiment`` has.
    """
    inside = torch.from_numpy(fold_of_rows(len(rows), experiment.train.seed) == number)
    others = rows[~inside]
    if not len(others):
        return np.full(len(rows), preprocessor.rating_mean)
    # The last epoch is kept: there are no rows to choose another one by.
    settings = experiment.train.model_copy(update={"keep": "last", "compile": "off"})
    experiment = experiment.model_copy(update={"train": settings})
    objective = Objective(experiment.train, experiment.time_decay, preprocessor)
    model = build(experiment, preprocessor, others)
    model.network.load_state_dict(fit(model, others, None, objective).last)
    return predict(model, rows[inside], objective).stars.astype(np.float64)


def in_order(of_folds: list[Floats], seed: int) -> Floats:
    """``[N]`` predictions in the order of the training rows, from those of each fold."""
    fold = fold_of_rows(sum(map(len, of_folds)), seed)
    result = np.empty(len(fold))
    for number, stars in enumerate(of_folds):
        result[fold == number] = stars
    return result
