"""What a comparison of choice models depends on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ingest.config import SyntheticConfig
from ingest.raw_data import RawData
from ncf.baselines.choice import choice_baseline_specs
from ncf.baselines.choice.base import ChoiceBaselineSpec
from ncf.choice_config import ChoiceConfig
from ncf.evaluation.choice_data import ChoiceData
from ray_jobs.config import JobConfig
from ray_jobs.results.stage import key_of
from ray_jobs.stages.choice_search import BestChoice
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.training.tasks import ChoiceProtocol


@dataclass(frozen=True)
class ChoiceCompareInputs:
    """Everything that a comparison of choice models depends on."""

    data: ComparedData
    choice: ChoiceConfig
    protocol: ChoiceProtocol
    seeds: tuple[int, ...]
    score_test: bool
    baselines: tuple[str, ...]
    trials_per_baseline: int
    resamples: int
    num_workers: int
    synthetic: SyntheticConfig | None = None
    """What the ratings were generated from, if they were: the truth is known then."""

    @classmethod
    def of(
        cls, config: JobConfig, raw: RawData, data: ComparedData, best: BestChoice
    ) -> ChoiceCompareInputs:
        """Those of a configuration."""
        compare = config.compare
        return cls(
            data=data,
            choice=best.choice,
            protocol=best.protocol,
            seeds=compare.seeds,
            score_test=compare.score_test,
            baselines=compare.choice.baselines,
            trials_per_baseline=compare.choice.trials_per_baseline,
            resamples=compare.resamples,
            num_workers=config.scaling.world_size,
            synthetic=config.data.synthetic if raw.synthetic else None,
        )

    @cached_property
    def selection(self) -> ChoiceData:
        """The rows that settings are chosen on."""
        return self.protocol.data(self.data.selection)

    @cached_property
    def final(self) -> ChoiceData:
        """The rows that models are scored with."""
        return self.protocol.data(self.data.final) if self.data.refit else self.selection

    @property
    def specs(self) -> tuple[ChoiceBaselineSpec[Any], ...]:
        """The baselines."""
        num_rows = self.data.selection.manifest.counts["train"]
        return choice_baseline_specs(num_rows, self.baselines)

    @property
    def seed_keys(self) -> dict[str, str]:
        """By name of a seed's training, the fingerprint of all that its members depend on."""
        common = [self.data, self.choice, self.protocol, self.score_test, self.num_workers]
        return {seed_name(seed): key_of([*common, seed]) for seed in self.seeds}

    @property
    def baseline_keys(self) -> dict[str, str]:
        """By title of a baseline, the fingerprint of all that its result depends on."""
        common = [self.data, self.protocol, self.score_test, self.trials_per_baseline, self.seeds]
        return {spec.title: key_of([*common, spec.name]) for spec in self.specs}


def seed_name(seed: int) -> str:
    """Names the training with a seed."""
    return f"choice seed {seed}"
