"""Search for the settings of the choice model: of EASE, then of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from foundation.storage import Storage
from ncf.choice_config import ChoiceConfig
from ncf.data.dataset import PreparedDataset
from ray_jobs.config import JobConfig, Member, with_choice_parameters
from ray_jobs.results.run import Workspace
from ray_jobs.search.space import point_of
from ray_jobs.search.trial_models import TrialModels
from ray_jobs.search.trial_tasks import ChoiceTrials, TrialTasks
from ray_jobs.stages.tuning import Searched, best_of, settings_of_trials
from ray_jobs.training.tasks import ChoiceProtocol
from ray_jobs.training.workers import Workers

MEMBERS: Final[tuple[Member, ...]] = get_args(Member)


@dataclass(frozen=True)
class BestChoice:
    """The configuration of the choice model that the later stages use."""

    choice: ChoiceConfig
    protocol: ChoiceProtocol
    parameters: dict[str, Any]
    """The settings that searches chose; empty if there was none."""
    num_trials: int
    """Of all members' searches."""


@dataclass(frozen=True)
class ChoiceTrialInputs:
    """Everything that the trials of a member's search depend on."""

    prepared: PreparedDataset
    settings: Any
    """The member's settings."""
    tune: dict[str, Any]
    """The settings of the search that change its trials."""
    protocol: ChoiceProtocol
    num_workers: int


@dataclass(frozen=True)
class SearchedChoices(Searched):
    """The settings of one member of the choice model."""

    config: JobConfig
    """With the member's search, ``JobConfig.of_member``."""
    prepared: PreparedDataset
    member: Member

    @property
    def trial_inputs(self) -> ChoiceTrialInputs:
        """Everything that its trials depend on."""
        return ChoiceTrialInputs(
            self.prepared,
            getattr(self.config.choice, self.member),
            settings_of_trials(self.config.tune),
            protocol_of(self.config),
            self.config.scaling.world_size,
        )

    @property
    def max_epochs(self) -> int:
        """The most epochs that a trial may have."""
        if self.member == "ease":
            return len(self.config.choice.ease.ridges)
        values = self.config.tune.space.get("network.epochs")
        searched = values.examples() if values else []
        return max([self.config.choice.network.epochs, *searched])

    @property
    def first_parameters(self) -> dict[str, Any] | None:
        """The configuration as it is, if the space has it."""
        settings = self.config.choice.model_dump()
        return point_of(self.config.tune.space, settings)

    def tasks(self, models: TrialModels, states: Storage | None) -> TrialTasks:
        """The training tasks of its trials, which keep no models: they are trained in seconds."""
        return ChoiceTrials(
            self.prepared, self.config.choice, self.member, protocol_of(self.config)
        )

    def with_settings(self, parameters: Mapping[str, Any]) -> ChoiceConfig:
        """The configuration with what a trial chose."""
        return with_choice_parameters(self.config.choice, parameters)


def protocol_of(config: JobConfig) -> ChoiceProtocol:
    """How rankings are scored with this configuration's split."""
    kind = config.split.kind
    return ChoiceProtocol(
        mask="forward" if kind in ("per-user-time", "global-time") else "random",
        num_given=config.choice.num_given if kind == "global-time" else 0,
        min_ratings=config.recommend.min_ratings,
        max_validation_users=config.choice.max_validation_users,
        metric=config.tune.choice.metric,
    )


def search_choices(workspace: Workspace, prepared: PreparedDataset, workers: Workers) -> BestChoice:
    """The best configuration by ``tune.choice.metric``, from these searches or the same before.

    Raises:
        ConfigError: if the sampler or the scheduler is unknown, or a package is missing.
        TrainingError: if every trial failed, with the first reason.
        ResourceError: if not even one trial fits the cluster.
    """
    config, parameters, num_trials = workspace.config, dict[str, Any](), 0
    for member in members_to_search(config):
        searched = SearchedChoices(config.of_member(member), prepared, member)
        values = best_of(searched, workspace, workers, member)
        parameters |= values["parameters"]
        num_trials += values["num_trials"]
    choice = with_choice_parameters(config.choice, parameters)
    return BestChoice(choice, protocol_of(config), parameters, num_trials)


def members_to_search(config: JobConfig) -> list[Member]:
    """The members that the model is made of and that have something to search."""
    if not config.num_choice_trials:
        return []
    used = [m for m in MEMBERS if config.choice.member in (m, "experts")]
    return [member for member in used if config.tune.choice.of(member)]
