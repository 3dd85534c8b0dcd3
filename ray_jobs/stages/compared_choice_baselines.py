"""The baselines of a comparison of choice models, and the truth of synthetic data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from foundation.storage import Storage
from ingest.config import SyntheticConfig
from ingest.sources.synthetic import choice_oracle
from ncf.baselines.choice.base import ChoiceBaselineSpec, described, tune_choice_baseline
from ncf.data.interactions import Interactions
from ncf.evaluation.choice_scores import ChoiceScores
from ncf.evaluation.choice_selection import ValidationUsers
from ncf.evaluation.ranking_metrics import RankingMetric
from ncf.models.choice.base import ChoiceModel
from ray_jobs.results.choices import ChoiceResult
from ray_jobs.results.rankings import write_rankings
from ray_jobs.stages.choice_inputs import ChoiceCompareInputs
from ray_jobs.training.tasks import CallTask


def baseline_task(
    spec: ChoiceBaselineSpec[Any], inputs: ChoiceCompareInputs, folder: Storage
) -> CallTask:
    """The task whose value is ``baseline_result``."""
    # Without the rows that they have read.
    own = replace(inputs, data=replace(inputs.data))
    work = partial(baseline_result, spec, own, folder)
    return CallTask(f"baseline {spec.title}", own.data.selection, work)


def baseline_result(
    spec: ChoiceBaselineSpec[Any], inputs: ChoiceCompareInputs, folder: Storage
) -> ChoiceResult:
    """Tune a baseline on the validation users, fit it, and score its rankings, which are written
    into ``folder``."""
    selection, preprocessor = inputs.selection, inputs.data.selection.preprocessor
    settings, validation = spec.default, tuple[ChoiceScores, ...]()
    if selection.validation:
        settings = tune_choice_baseline(
            spec,
            selection.train,
            preprocessor,
            ValidationUsers(selection, RankingMetric.parse(inputs.protocol.metric)).value,
            inputs.trials_per_baseline,
        )
        model = spec.fit(selection.train, preprocessor, settings)
        ranked = selection.rank(model, selection.validation)
        validation = (selection.score(ranked, selection.validation),)
    test, files = _test(spec, settings, inputs, folder)
    return ChoiceResult(spec.title, described(settings), "baseline", test, validation, files)


def _test(
    spec: ChoiceBaselineSpec[Any], settings: Any, inputs: ChoiceCompareInputs, folder: Storage
) -> tuple[tuple[ChoiceScores, ...], tuple[str, ...]]:
    """Scores of the test users' rankings for each seed, and the files of the rankings."""
    data = inputs.final
    if not inputs.score_test or not data.test:
        return (), ()
    preprocessor = inputs.data.final.preprocessor
    scores, files = list[ChoiceScores](), list[str]()
    for number, model in enumerate(
        spec.fit_seeds(data.train, preprocessor, settings, inputs.seeds)
    ):
        ranked = data.rank(model, data.test)
        files.append(f"{spec.name}-{number}.parquet")
        write_rankings(ranked, data.test, folder / files[-1])
        scores.append(data.score(ranked, data.test))
    return tuple(scores), tuple(files)


@dataclass(frozen=True)
class _Truth(ChoiceModel):
    """The probabilities that choices were drawn with."""

    synthetic: SyntheticConfig

    def scores(self, known: Interactions) -> torch.Tensor:
        return torch.from_numpy(choice_oracle(self.synthetic, known.users).astype(np.float32))


def oracle_result(inputs: ChoiceCompareInputs, folder: Storage) -> Iterator[ChoiceResult]:
    """What rankings by the true probabilities reach, if they are known; nothing if not."""
    data = inputs.final
    if inputs.synthetic is None or not inputs.score_test or data.test is None:
        return
    ranked = data.rank(_Truth(inputs.synthetic), data.test)
    write_rankings(ranked, data.test, folder / "oracle.parquet")
    yield ChoiceResult(
        name="oracle",
        detail="the probabilities that the synthetic choices were drawn with",
        kind="oracle",
        test=(data.score(ranked, data.test),),
        validation=(),
        rankings=("oracle.parquet",),
    )
