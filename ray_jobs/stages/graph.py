"""The stages of a run as a graph: each result is brought up to date after those that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from foundation.storage import Storage
from ingest.dataset import RawData
from ncf.data.dataset import PreparedDataset
from ray_jobs.cluster import preflight
from ray_jobs.config import JobConfig
from ray_jobs.results.comparison import Comparison
from ray_jobs.results.run import Workspace
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.stages.comparison import compare
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
        is_fixed = bool(self.workspace.config.compare.configurations)
        data = ComparedData(self.prepared, self.scored_data)
        best_trial = None if is_fixed else self.best_trial
        return compare(self.workspace, self.raw, data, best_trial, self.workers)

    @cached_property
    def final_model(self) -> FinalModel:
        """Training: the model that the run keeps."""
        final_data = self.final_data
        return train(
            self.workspace, self.raw, self.prepared, final_data, self.best_trial, self.workers
        )

    @cached_property
    def recommendations(self) -> Storage:
        """Recommendation: the file with the best unseen movies of every user."""
        return recommend(self.workspace, self.final_model, self.workers)


@contextmanager
def stages_of(config: JobConfig, *, force: bool) -> Iterator[Stages]:
    """The stages of a run, once its checks have passed, with a connection to Ray.

    Raises:
        MovieRatingsError: if a check fails, saying what to change.
    """
    workspace = Workspace(config, force)
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
    # A trial breaks a group at most once, and a task at most ``max_failures`` times. Further
    # failures have other causes.
    failures = num_runs * (num_trials + num_tasks * config.scaling.max_failures)
    return Workers(workspace.paths.ray("workers"), failures)
