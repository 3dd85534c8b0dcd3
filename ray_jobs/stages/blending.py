"""Complete the final rating model: the members of its blend, their weights, and its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch

from foundation.checksums import write_checksums
from foundation.storage import Storage
from ncf.baselines import available, fit_baseline
from ncf.blending.blend import Blend, Member, load_member
from ncf.blending.stacking import StackedMember
from ncf.blending.weights import Weights
from ncf.data.batches import Batch
from ncf.data.dataset import PreparedDataset
from ncf.data.preprocessor import Floats
from ncf.evaluation.predictions import Predictions
from ncf.evaluation.ranking import SeenMovies
from ncf.evaluation.uncertainty import LEVELS, Uncertainty, UncertaintyScores
from ncf.inference import checkpoint
from ncf.inference.checkpoint import Checkpoint
from ncf.inference.spread import interval_features, intervals_of
from ncf.inference.stars import combined, member_stars, network_stars
from ncf.registry import BASELINES
from ray_jobs.config import BlendConfig
from ray_jobs.errors import TrainingError
from ray_jobs.results.final_model import load_model
from ray_jobs.stages.rows import rows_of
from ray_jobs.training.scratch import scratch_folder
from ray_jobs.training.tasks import CallTask

NETWORK: Final = "network"
"""Name of the network among the members."""
_MOST_ROWS: Final = 20_000
"""Rows of a split by which uncertainty is learned, and scored; more would change no digit shown."""


@dataclass(frozen=True)
class MemberInputs:
    """What a member learns from."""

    name: str
    """In ``ncf.registry``."""
    selection: PreparedDataset
    """Its settings are chosen on these validation rows."""
    final: PreparedDataset
    """It is fitted again on these training rows; the same data, or with the validation rows."""
    trials: int


def member_inputs(
    blend: BlendConfig, selection: PreparedDataset, final: PreparedDataset
) -> list[MemberInputs]:
    """What each member of the blend learns from."""
    return [MemberInputs(name, selection, final, blend.trials) for name in blend.members]


def member_tasks(members: Sequence[MemberInputs], folder: Storage) -> list[CallTask]:
    """A task for each member that is fitted by itself. It leaves the member in ``folder``, in one
    of its name."""
    return [
        CallTask(
            f"member {inputs.name}", inputs.selection, partial(fit_member, inputs, folder), "member"
        )
        for inputs in members
        if inputs.name in BASELINES
    ]


def fit_member(inputs: MemberInputs, folder: Storage) -> None:
    """Fit one member, and write it into ``folder / name``, and beside that what it predicted for
    the validation rows when it had not learned from them.

    Raises:
        TrainingError: if it cannot be fitted here.
    """
    if has_member(inputs.name, folder):  # by a job that was interrupted later
        return
    train, validation = rows_of(inputs.selection, "train"), rows_of(inputs.selection, "validation")
    notes = list[str]()
    specs = available(BASELINES, len(train), (inputs.name,), notes.append)
    if not specs:
        raise TrainingError(f"blend.members cannot have {inputs.name}: {' '.join(notes)}")
    fitted = fit_baseline(specs[0], train, validation, inputs.selection.preprocessor, inputs.trials)
    stars = fitted.baseline.predict(validation).numpy()
    member: Any = fitted.baseline
    if inputs.final is not inputs.selection:
        (member,) = fitted.refit(rows_of(inputs.final, "train"), inputs.final.preprocessor)
    write_member(inputs.name, member, stars, folder)


def write_member(
    name: str, member: Member | StackedMember, of_validation: Floats, folder: Storage
) -> None:
    """Write the final ``member`` into ``folder / name``, and then, as a sign that it is whole, its
    predictions for the validation rows when it had not learned from them: ``[N]`` stars."""
    with scratch_folder() as scratch:
        place = scratch / name
        place.mkdir()
        member.save(place)
        write_checksums(place)
        Storage.at(place).copy_to(folder / name)
    _predictions(folder, name).write_table(pa.table({"stars": of_validation}))


def has_member(name: str, folder: Storage) -> bool:
    """Whether ``write_member`` has written it."""
    return _predictions(folder, name).exists()


def _predictions(folder: Storage, name: str) -> Storage:
    """File of a member's predictions for the validation rows."""
    return folder / f"{name}-validation.parquet"


@dataclass(frozen=True)
class ValidationPredictions:
    """Predictions for the validation rows by what was trained without them."""

    network: Checkpoint
    rows: Batch
    """``[N]``."""
    of_members: torch.Tensor
    """``[K, N]`` clipped stars, of the network first."""

    @classmethod
    def read(
        cls, network: Checkpoint, data: PreparedDataset, members: Sequence[str], folder: Storage
    ) -> ValidationPredictions:
        """Those of the network, and of the members that ``member_tasks`` left in ``folder``."""
        rows, preprocessor = rows_of(data, "validation"), data.preprocessor
        tables = (_predictions(folder, name).read_table() for name in members)
        others = (torch.from_numpy(table["stars"].to_numpy().copy()) for table in tables)
        stars = torch.stack([network_stars(network, rows).double(), *others])
        clipped = stars.clamp(preprocessor.rating_min, preprocessor.rating_max)
        return cls(network, rows, clipped)

    @property
    def ratings(self) -> Floats:
        """``[N]`` stars."""
        return self.rows.ratings.numpy().astype(np.float64)

    @property
    def is_blend(self) -> bool:
        """Whether there are members beside the network."""
        return len(self.of_members) > 1

    def weights(self) -> Weights:
        """Of the members."""
        return Weights.fit(self.of_members.numpy(), self.ratings)

    def stars(self) -> Floats:
        """``[N]`` predictions of the network, or of the blend: each by weights that were fitted to
        other rows."""
        if not self.is_blend:
            return self.of_members[0].double().numpy()
        preprocessor = self.network.preprocessor
        found = Weights.cross_fitted(self.of_members.numpy(), self.ratings)
        return np.clip(found, preprocessor.rating_min, preprocessor.rating_max)

    def uncertainty(self) -> Uncertainty:
        """Learned from the errors."""
        some = _some(self.rows)
        features = interval_features(self.network, self.rows[some], self.of_members[:, some])
        errors = (self.ratings - self.stars())[some.numpy()]
        return Uncertainty.fit(features, errors)


def complete(
    network: Storage,
    model: Storage,
    validation: ValidationPredictions | None,
    members: Sequence[str],
    folder: Storage,
    rated: SeenMovies,
) -> None:
    """Write the checkpoint of the final ``network`` into ``model``, with the blend, the uncertainty
    and what users have ``rated``. ``folder`` is that of ``member_tasks``.
    """
    with scratch_folder() as scratch:
        copy = scratch / "model"
        network.copy_to(Storage.at(copy))
        blend, preprocessor = None, checkpoint.load(copy).preprocessor
        if validation and members:
            fitted = list[tuple[str, Member | StackedMember]]()
            for name in members:
                (folder / name).copy_to(Storage.at(scratch / name))
                fitted.append((name, load_member(scratch, name, preprocessor)))
            ends = preprocessor.rating_min, preprocessor.rating_max
            blend = Blend(validation.weights(), tuple(fitted), *ends)
        uncertainty = validation.uncertainty() if validation else None
        checkpoint.extend(copy, blend, uncertainty, rated)
        Storage.at(copy).copy_to(model)


def scores(
    model: Storage, data: PreparedDataset, validation: ValidationPredictions
) -> dict[str, Any]:
    """Errors of the completed ``model`` on the test rows, as it is served: those keys of
    ``RunMetrics`` that are not the network's own.
    """
    served, rows = load_model(model), rows_of(data, "test")
    if served.blend is None:  # workers have scored all rows
        rows = rows[_some(rows)]
    of_members = member_stars(served, rows)
    stars = combined(served, of_members).numpy().astype(np.float64)
    found = {"uncertainty": _uncertainty(served, rows, of_members, stars, validation)}
    if served.blend is None:
        return found
    members = [
        {
            "name": name,
            "weight": weight,
            "validation": _scores(on_validation, validation.rows),
            "test": _scores(on_test, rows),
        }
        for name, weight, on_validation, on_test in zip(
            [NETWORK, *(name for name, _ in served.blend.members)],
            served.blend.weights.of_members,
            validation.of_members.numpy(),
            of_members.numpy(),
            strict=True,
        )
    ]
    return found | {
        "members": members,
        "validation": _scores(validation.stars(), validation.rows),
        "test": _scores(stars, rows),
    }


def _uncertainty(
    served: Checkpoint,
    rows: Batch,
    of_members: torch.Tensor,
    stars: Floats,
    validation: ValidationPredictions,
) -> UncertaintyScores:
    some = _some(rows)
    known = interval_features(served, rows[some], of_members[:, some])
    intervals = {level: intervals_of(served, known, stars[some.numpy()], level) for level in LEVELS}
    return UncertaintyScores.of(
        intervals,
        stars[some.numpy()],
        rows.ratings[some].double().numpy(),
        constant_sd=_scores(validation.stars(), validation.rows)["rmse"],
    )


def _some(rows: Batch) -> torch.Tensor:
    """Positions of all rows, or of those of random users, ``_MOST_ROWS`` of them in all.

    Of few users all rows, because a Gaussian process takes time for each user.
    """
    if len(rows) <= _MOST_ROWS:
        return torch.arange(len(rows))
    users = rows.users.numpy()
    rank = np.random.default_rng(0).permutation(int(users.max()) + 1)
    order = np.argsort(rank[users], kind="stable")[:_MOST_ROWS]
    return torch.from_numpy(np.sort(order))


def _scores(stars: Floats, rows: Batch) -> dict[str, Any]:
    found = torch.from_numpy(np.asarray(stars, np.float32))
    return Predictions(found.numpy(), (found * rows.weights).numpy()).score(rows).as_dict()
