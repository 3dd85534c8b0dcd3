"""Tasks that fit members of a blend to out-of-fold predictions of its network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from foundation.errors import ConfigError
from foundation.storage import Storage
from ncf.baselines import available
from ncf.blending.stacking import StackedMember, StackedRows, StackedSpec, fit_stacked
from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ncf.data.preprocessor import Floats
from ncf.inference.stars import network_stars
from ncf.registry import STACKED_MEMBERS, implementation
from ncf.training.out_of_fold import FOLDS, in_order, predict_fold
from ray_jobs.config import with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.results.final_model import load_model
from ray_jobs.stages.blending import MemberInputs, has_member, write_member
from ray_jobs.stages.rows import rows_of
from ray_jobs.training.tasks import CallTask


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of a network for the training rows of some data."""

    experiment: ExperimentConfig
    data: PreparedDataset
    folder: Storage
    """Of the predictions, nothing else."""

    @classmethod
    def of_epoch(
        cls, experiment: ExperimentConfig, epoch: int, data: PreparedDataset, folder: Storage
    ) -> OutOfFold:
        """Those of networks that are trained as ``experiment`` says, up to ``epoch``."""
        return cls(with_parameters(experiment, {"train.stop_after": epoch}), data, folder)

    def tasks(self, label: str) -> list[CallTask]:
        """A task for each fold; ``label`` tells them from others."""
        return [
            CallTask(
                f"fold {number + 1} of {label}", self.data, partial(self._predict, number), "fold"
            )
            for number in range(FOLDS)
        ]

    def rows(self) -> StackedRows:
        """The training rows with the predictions, when the tasks are done."""
        tables = [self._file(number).read_table() for number in range(FOLDS)]
        of_folds = [table["stars"].to_numpy() for table in tables]
        stars = in_order(of_folds, self.experiment.train.seed)
        return StackedRows(rows_of(self.data, "train"), stars)

    def _predict(self, number: int) -> None:
        if self._file(number).exists():  # by a job that was interrupted later
            return
        rows = rows_of(self.data, "train")
        stars = predict_fold(self.experiment, self.data.preprocessor, rows, number)
        self._file(number).write_table(pa.table({"stars": stars}))

    def _file(self, number: int) -> Storage:
        return self.folder / f"fold-{number}.parquet"


@dataclass(frozen=True)
class StackedFit:
    """A member that is fitted twice: for its settings, and for the final model."""

    name: str
    """In ``ncf.registry.STACKED_MEMBERS``."""
    selection: OutOfFold
    """It is fitted to these, and its settings are chosen on the validation rows of their data."""
    final: OutOfFold | None
    """It is fitted again to these, if there are others for the final model."""
    trials: int

    @property
    def folds(self) -> list[OutOfFold]:
        """What it is fitted to."""
        return [self.selection] if self.final is None else [self.selection, self.final]

    def tasks(self, label: str) -> list[CallTask]:
        """The tasks of the folds that it needs."""
        names = (f"{label}, {part}" for part in ("selection", "refit"))
        return [
            task for each, name in zip(self.folds, names, strict=False) for task in each.tasks(name)
        ]

    def fit(self, validation: StackedRows) -> tuple[StackedMember, StackedMember]:
        """The member for the validation rows, and the final one."""
        spec: StackedSpec[Any] = implementation(STACKED_MEMBERS[self.name].implementation)
        first, settings = fit_stacked(
            spec,
            self.selection.rows(),
            validation,
            self.selection.data.preprocessor,
            self.trials,
            with_times=knows_times(self.selection.experiment),
        )
        if self.final is None:
            return first, first
        return first, spec.fit(self.final.rows(), self.final.data.preprocessor, settings)


def knows_times(experiment: ExperimentConfig) -> bool:
    """Whether predictions depend on when ratings were given."""
    model = experiment.model
    return "time" in model.inputs or bool(model.history.encoders and model.history.use_times)


def refuse_causal(experiment: ExperimentConfig, setting: str) -> None:
    """Refuse a network that learns to predict ratings from earlier ones.

    Its out-of-fold predictions would look at later ratings too, and so err less than forecasts do.

    Raises:
        ConfigError: naming ``setting``.
    """
    if experiment.model.history.encoders and experiment.model.history.causal:
        raise ConfigError(
            f"{setting}: residual boosting learns the errors of filling in ratings, but with "
            "model.history.causal the network forecasts them: leave one of the two out"
        )


def stacked_tasks(
    members: list[MemberInputs],
    experiment: ExperimentConfig,
    best_epoch: int,
    network: Storage,
    folder: Storage,
) -> list[list[CallTask]]:
    """Tasks that fit the stacked members of a blend, in two rounds, the second of which needs the
    first. They leave the members in ``folder``, as ``blending.fit_member`` does.

    Args:
        members: of any kind; others than stacked ones are left out.
        experiment: of the network.
        best_epoch: up to which it is trained.
        network: the checkpoint of the network that has not learned from validation rows.
        folder: of the members.
    """
    stacked = [inputs for inputs in members if inputs.name in STACKED_MEMBERS]
    if not stacked:
        return []
    refuse_causal(experiment, "blend.members")
    notes = list[str]()
    names = [inputs.name for inputs in stacked]
    num_rows = stacked[0].selection.manifest.counts["train"]
    if len(available(STACKED_MEMBERS, num_rows, names, notes.append)) < len(names):
        raise TrainingError(f"blend.members cannot have {', '.join(names)}: {' '.join(notes)}")

    def out_of_fold(data: PreparedDataset, part: str) -> OutOfFold:
        return OutOfFold.of_epoch(experiment, best_epoch, data, folder / f"out-of-fold-{part}")

    fits = [
        StackedFit(
            inputs.name,
            out_of_fold(inputs.selection, "selection"),
            None if inputs.final is inputs.selection else out_of_fold(inputs.final, "final"),
            inputs.trials,
        )
        for inputs in stacked
    ]
    last = [
        CallTask(
            f"member {fit.name}", fit.selection.data, partial(_fit, fit, network, folder), "member"
        )
        for fit in fits
    ]
    return [fits[0].tasks("the network"), last]


def _fit(fit: StackedFit, network: Storage, folder: Storage) -> None:
    if has_member(fit.name, folder):
        return
    rows = rows_of(fit.selection.data, "validation")
    known = network_stars(load_model(network), rows)
    first, final = fit.fit(StackedRows(rows, known.double().numpy()))
    stars: Floats = first.predict_from(known, rows).numpy()
    write_member(fit.name, final, stars, folder)
