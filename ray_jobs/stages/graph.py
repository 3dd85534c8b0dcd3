"""The stages before the final model, brought up to date when their results are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ingest.dataset import RawData
from ncf.data.dataset import PreparedDataset
from ray_jobs.results.comparison import Comparison
from ray_jobs.results.run import Workspace
from ray_jobs.stages.comparison import compare
from ray_jobs.stages.preparation import ingest, preprocess
from ray_jobs.stages.tuning import BestTrial, search


@dataclass(frozen=True)
class Stages:
    """Results of the stages of one run; each stage is run at most once, after those it needs.

    Each property raises what its stage raises.
    """

    workspace: Workspace

    @cached_property
    def raw(self) -> RawData:
        """Ingest: ratings, movies and TMDb records."""
        return ingest(self.workspace)

    @cached_property
    def prepared(self) -> PreparedDataset:
        """Preprocess: features, splits and weights."""
        return preprocess(self.workspace, self.raw)

    @cached_property
    def best_trial(self) -> BestTrial:
        """Search: the configuration to train."""
        return search(self.workspace, self.prepared)

    @cached_property
    def comparison(self) -> Comparison:
        """Comparison: models and baselines; fixed configurations need no search."""
        is_fixed = bool(self.workspace.config.compare.configurations)
        best_trial = None if is_fixed else self.best_trial
        return compare(self.workspace, self.raw, self.prepared, best_trial)
