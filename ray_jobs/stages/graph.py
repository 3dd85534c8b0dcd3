"""The stages of a run as a graph: each result is brought up to date after those that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from foundation.storage import Storage
from ingest.raw_data import RawData
from ncf.data.dataset import PreparedDataset
from ray_jobs.cluster import preflight
from ray_jobs.config import JobConfig
from ray_jobs.redo import Redo
from ray_jobs.results.choices import ChoiceComparison
from ray_jobs.results.comparison import Comparison
from ray_jobs.results.model_card import write_model_card
from ray_jobs.results.people import write_people
from ray_jobs.results.run import Workspace
from ray_jobs.stages.choice_comparison import compare_choices
from ray_jobs.stages.choice_search import BestChoice, members_to_search, search_choices
from ray_jobs.stages.choice_training import FinalChoiceModel, train_choices
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.stages.comparison import PlannedComparison, compare, plan_comparison
from ray_jobs.stages.preparation import ingest, preprocess
from ray_jobs.stages.recommendation import recommend
from ray_jobs.stages.training import FinalModel, train
from ray_jobs.stages.tuning import BestTrial, search
from ray_jobs.training.workers import Workers


@dataclass(frozen=True)
class Stages:
    """Results of the stages of one run; each stage is run at most once, after those it needs.

    Each property raises what its stage raises.
    """

    workspace: Workspace
    workers: Workers
    """What models are trained on."""

    @cached_property
    def raw(self) -> RawData:
        """Ingest: ratings, movies and TMDb records."""
        return ingest(self.workspace)

    @cached_property
    def prepared(self) -> PreparedDataset:
        """Preprocess: features, splits and weights."""
        return preprocess(self.workspace, self.raw, self.workers)

    @property
    def final_data(self) -> PreparedDataset:
        """Preprocess: the data that the final model learns from."""
        return self._again_with_validation(self.workspace.config.final.refit_on_validation)

    @property
    def scored_data(self) -> PreparedDataset:
        """Preprocess: the data that compared models learn from before they are scored."""
        return self._again_with_validation(self.workspace.config.compare.trains_again)

    def _again_with_validation(self, wanted: bool) -> PreparedDataset:
        has_validation = bool(self.prepared.manifest.counts["validation"])
        return self._with_validation if wanted and has_validation else self.prepared

    @cached_property
    def _with_validation(self) -> PreparedDataset:
        """The data with the validation rows among the training rows; after a search, preparing them
        ends the worker groups, which start once more."""
        return preprocess(self.workspace, self.raw, self.workers, train_on_validation=True)

    @cached_property
    def best_trial(self) -> BestTrial:
        """Search: the configuration to train."""
        return search(self.workspace, self.prepared, self.workers)

    @cached_property
    def comparison(self) -> Comparison:
        """Comparison: models and baselines; fixed configurations need no search."""
        return compare(self.workspace, self.raw, *self._compared, self.workers)

    @cached_property
    def planned_comparison(self) -> PlannedComparison:
        """Comparison: what is to be compared, once the searches for it are done."""
        return plan_comparison(self.workspace, self.raw, *self._compared, self.workers)

    @property
    def _compared(self) -> tuple[ComparedData, BestTrial | None]:
        is_fixed = bool(self.workspace.config.compare.configurations)
        data = ComparedData(self.prepared, self.scored_data)
        return data, None if is_fixed else self.best_trial

    @cached_property
    def final_model(self) -> FinalModel:
        """Training: the model that the run keeps."""
        final_data = self.final_data
        return train(
            self.workspace, self.raw, self.prepared, final_data, self.best_trial, self.workers
        )

    @cached_property
    def best_choice(self) -> BestChoice:
        """Search: the configuration of the choice model."""
        return search_choices(self.workspace, self.prepared, self.workers)

    @cached_property
    def choice_comparison(self) -> ChoiceComparison:
        """Comparison: choice models and baselines."""
        data = ComparedData(self.prepared, self.scored_data)
        return compare_choices(self.workspace, self.raw, data, self.best_choice, self.workers)

    @cached_property
    def final_choice_model(self) -> FinalChoiceModel:
        """Training: the choice model that the run keeps."""
        if self.workspace.config.wants_ratings:
            _ = self.final_model  # replaces the folder that both are in
        final_data = self.final_data
        return train_choices(
            self.workspace, self.raw, self.prepared, final_data, self.best_choice, self.workers
        )

    @property
    def best_parameters(self) -> tuple[dict[str, Any], ...]:
        """Search: what was chosen for the rating model and for the choice model."""
        config = self.workspace.config
        ratings = (self.best_trial.parameters,) if config.wants_ratings else ()
        return (*ratings, self.best_choice.parameters) if config.wants_choices else ratings

    @property
    def comparisons(self) -> tuple[Comparison | ChoiceComparison, ...]:
        """Comparison: of rating models and of choice models."""
        config = self.workspace.config
        ratings = (self.comparison,) if config.wants_ratings else ()
        return (*ratings, self.choice_comparison) if config.wants_choices else ratings

    @property
    def final_models(self) -> tuple[FinalModel | FinalChoiceModel, ...]:
        """Training: all models that the run keeps."""
        config, paths = self.workspace.config, self.workspace.paths
        models: tuple[FinalModel | FinalChoiceModel, ...] = ()
        if config.wants_ratings:
            models += (self.final_model,)
        if config.wants_choices:
            models += (self.final_choice_model,)
        else:
            paths.choice_checkpoint.delete()  # of an earlier run of this name
        write_model_card(paths, with_ratings=config.wants_ratings)
        write_people(paths.checkpoint, self.raw)
        return models

    @cached_property
    def recommendations(self) -> Storage:
        """Recommendation: the file with the best unseen movies of every user."""
        return recommend(self.workspace, self.final_models, self.workers)


@contextmanager
def stages_of(config: JobConfig, *, redo: Redo) -> Iterator[Stages]:
    """The stages of a run, once its checks have passed, with a connection to Ray.

    Raises:
        MovieRatingsError: if a check fails, saying what to change.
    """
    workspace = Workspace(config, redo)
    with preflight.job(workspace), workers_of(workspace) as workers:
        yield Stages(workspace, workers)


def workers_of(workspace: Workspace, num_runs: int = 1) -> Workers:
    """What the models of runs like this one are trained on, until the block of a ``with`` statement
    ends."""
    config = workspace.config
    compare, tune = config.compare, config.tune
    num_compared = len(compare.configurations or compare.losses)
    num_trials = tune.num_trials + num_compared * compare.trials_per_loss
    num_tasks = 2 * (num_compared * len(compare.seeds) + 1)
    if config.wants_choices:
        num_trials += config.num_choice_trials * len(members_to_search(config))
        num_tasks += 2 * (len(compare.seeds) + 1)
    # What its tasks can account for; after more, a group is given up.
    failures = tune.max_preemptions * (num_trials + num_tasks)
    failures += num_trials + num_tasks * config.scaling.max_failures
    failures *= num_runs
    return Workers(workspace.paths.ray("workers"), failures, config.name)
