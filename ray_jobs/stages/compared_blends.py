"""The blends of a comparison: weighted sums of its models' and baselines' predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foundation.storage import Storage
from ncf.blending.weights import Weights
from ncf.data.batches import Batch
from ncf.data.preprocessor import Floats, Preprocessor
from ncf.evaluation.predictions import Predictions
from ray_jobs.results.comparison import ModelResult
from ray_jobs.stages.compared_baselines import write_predictions
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.stages.rows import rows_of


@dataclass(frozen=True)
class ComparedBlends:
    """Blends of the models and baselines that ``results`` are of."""

    data: ComparedData
    blends: Mapping[str, Sequence[str]]
    """The names of each blend's members."""
    folder: Storage
    """Of the predictions."""

    def results(self, entries: Sequence[ModelResult]) -> Iterator[ModelResult]:
        """A row for each blend, given the rows of its members; its predictions are written."""
        by_name = {entry.name: entry for entry in entries}
        for name, members in self.blends.items():
            yield self._result(name, [by_name[member] for member in members])

    def _result(self, name: str, members: Sequence[ModelResult]) -> ModelResult:
        validation = rows_of(self.data.selection, "validation")
        ratings = validation.ratings.numpy().astype(np.float64)
        num_seeds = max(len(member.validation_predictions) for member in members)
        weights, files = list[Weights](), list[str]()
        on_validation, on_test = [], []
        for seed in range(num_seeds):
            known = self._stars([_of(member.validation_predictions, seed) for member in members])
            weights.append(Weights.fit(known, ratings))
            guessed = Weights.cross_fitted(known, ratings)
            found = _predictions(guessed, validation, self.data.selection.preprocessor)
            on_validation.append(found.score(validation).as_dict())
            if all(member.predictions for member in members):
                stars = self._stars([_of(member.predictions, seed) for member in members])
                combined = weights[-1].combine(stars)
                found = _predictions(combined, self.data.test, self.data.final.preprocessor)
                on_test.append(found.score(self.data.test).as_dict())
                label = f"{label_of(name)} seed {seed}"
                files.append(write_predictions(label, found, self.data, self.folder))
        mean = np.mean([each.of_members for each in weights], axis=0)
        shares = zip(members, mean, strict=True)
        return ModelResult(
            name=name,
            detail="; ".join(f"{weight:.3f} x {member.name}" for member, weight in shares),
            kind="blend",
            test=tuple(on_test),
            validation=tuple(on_validation),
            predictions=tuple(files),
        )

    def _stars(self, files: Sequence[str]) -> Floats:
        """``[K, N]`` predictions of K members."""
        return np.stack([stars_of_file(self.folder / file) for file in files])


def stars_of_file(file: Storage) -> Floats:
    """``[N]`` stars of a file with predictions."""
    return Predictions.from_arrow(file.read_table()).stars.astype(np.float64)


def label_of(name: str) -> str:
    """Names the files of a blend."""
    return f"blend {name}"


def _of(files: Sequence[str], seed: int) -> str:
    """The file of a seed; that of a baseline without randomness is the same for all."""
    return files[min(seed, len(files) - 1)]


def _predictions(stars: Floats, rows: Batch, preprocessor: Preprocessor) -> Predictions:
    clipped = np.clip(stars, preprocessor.rating_min, preprocessor.rating_max).astype(np.float32)
    return Predictions(clipped, (torch.from_numpy(clipped) * rows.weights).numpy())
