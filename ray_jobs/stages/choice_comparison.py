"""Compare the members of the choice model, several seeds each, with baselines.

All models are fitted to the training rows, their settings chosen on the validation users' rankings,
and scored once on the test users'; with ``compare.refit_on_validation`` they are first fitted again
to both. The served member is called better than a baseline only if their difference on the same
users is significant (``ncf.evaluation.choice_significance``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import torch

from foundation.console import show
from foundation.storage import Storage
from ingest.config import SyntheticConfig
from ingest.dataset import RawData
from ingest.sources.synthetic import choice_oracle
from ncf.baselines.choice import choice_baseline_specs
from ncf.baselines.choice.base import ChoiceBaselineSpec, described, tune_choice_baseline
from ncf.choice_config import ChoiceConfig
from ncf.data.interactions import Interactions
from ncf.evaluation.choice_data import ChoiceData
from ncf.evaluation.choice_scores import ChoiceScores
from ncf.evaluation.choice_selection import ValidationUsers
from ncf.evaluation.choice_significance import ChoiceDifference, UserValues, choice_differences
from ncf.evaluation.ranking_metrics import RankingMetric
from ncf.models.choice.base import ChoiceModel
from ray_jobs.config import JobConfig
from ray_jobs.results.choices import (
    RELEVANCES,
    RELEVANT,
    ChoiceComparison,
    ChoiceResult,
    choice_differences_table,
    choices_table,
    user_values,
)
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.rankings import write_rankings
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage
from ray_jobs.stages.choice_search import BestChoice
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.training.run_tasks import train_tasks
from ray_jobs.training.tasks import ChoiceProtocol, ChoiceTask, Task, TaskResult
from ray_jobs.training.workers import Workers

logger = logging.getLogger(__name__)

TITLES: Final = {
    "ease": "EASE with content and context",
    "network": "choice network",
    "experts": "product of both",
}
"""Names of the members in tables."""

_COMPARED: Final = "ndcg@10"
"""The metric whose differences are tested."""


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


def compare_choices(
    workspace: Workspace, raw: RawData, data: ComparedData, best: BestChoice, workers: Workers
) -> ChoiceComparison:
    """Fit every member with every seed, and score them with the baselines.

    Args:
        workspace: the run.
        raw: the data set.
        data: its prepared rows.
        best: the configuration.
        workers: what to train on.
    """
    config, paths = workspace.config, workspace.paths
    inputs = ChoiceCompareInputs.of(config, raw, data, best)
    work = partial(
        _compare, paths=paths, trained=partial(train_tasks, workers=workers, config=config)
    )
    outputs = (paths.choice_comparison, paths.rankings)
    workspace.update(Stage("compare-choices", inputs, outputs, work))
    comparison = ChoiceComparison.from_json(paths.choice_comparison.read_json())
    show(choices_table(comparison))
    if comparison.differences:
        show(choice_differences_table(comparison))
    return comparison


def _compare(
    inputs: ChoiceCompareInputs,
    paths: RunPaths,
    trained: Callable[[Sequence[Task]], Iterator[TaskResult]],
) -> None:
    """The work of the stage."""
    paths.choice_comparison.delete()
    paths.rankings.delete()
    paths.rankings.make_folder()
    models = _models(inputs, paths.rankings, trained)
    entries = (*_baselines(inputs, paths.rankings), *models, *_oracle(inputs, paths.rankings))
    served = TITLES[inputs.choice.member]
    holdout = inputs.final.test if inputs.score_test else inputs.selection.validation
    comparison = ChoiceComparison(
        entries=entries,
        served=served,
        num_users=len(holdout) if holdout else 0,
        metric=inputs.protocol.metric,
        refitted=inputs.data.refit,
        scored="test" if inputs.score_test else "validation",
        num_given=inputs.protocol.num_given,
        min_ratings=inputs.protocol.min_ratings,
        differences=tuple(_differences(inputs, entries, served, paths.rankings)),
    )
    paths.choice_comparison.write_json(asdict(comparison))


# -- Members of the choice model -------------------------------------------------------------------


def _models(
    inputs: ChoiceCompareInputs,
    folder: Storage,
    trained: Callable[[Sequence[Task]], Iterator[TaskResult]],
) -> list[ChoiceResult]:
    """A row for each member that is part of the configured one."""
    tasks = [_selection(inputs, seed, folder) for seed in inputs.seeds]
    refits = [_refit(inputs, task, folder) for task in tasks] if inputs.data.refit else []
    results = {result.name: result for result in trained([*tasks, *refits])}
    chosen = [results[task.name] for task in tasks]
    scored = [results[task.name] for task in refits] or chosen
    members = [m for m in TITLES if inputs.choice.member in (m, "experts")]
    return [_result(inputs, member, chosen, scored) for member in members]


def _selection(inputs: ChoiceCompareInputs, seed: int, folder: Storage) -> ChoiceTask:
    """The training that chooses ridge, epoch and power."""
    name = f"choice seed {seed}"
    network = inputs.choice.network.model_copy(update={"seed": seed})
    is_scored = inputs.score_test and not inputs.data.refit
    return ChoiceTask(
        name,
        inputs.data.selection,
        inputs.choice.model_copy(update={"network": network}),
        inputs.protocol,
        score_test=is_scored,
        rankings=folder / f"seed-{seed}" if is_scored else None,
    )


def _refit(inputs: ChoiceCompareInputs, task: ChoiceTask, folder: Storage) -> ChoiceTask:
    """The same on the rows that include the validation rows."""
    return replace(
        task,
        name=f"{task.name}, refit",
        prepared=inputs.data.final,
        score_test=True,
        rankings=folder / f"seed-{task.choice.network.seed}",
        as_chosen_in=task.name,
    )


def _result(
    inputs: ChoiceCompareInputs,
    member: str,
    chosen: Sequence[TaskResult],
    scored: Sequence[TaskResult],
) -> ChoiceResult:
    # EASE does not depend on the seed.
    count = 1 if member == "ease" else len(chosen)
    scores = [result.test[member] for result in scored[:count] if result.test]
    validation = [result.validation[member] for result in chosen[:count] if result.validation]
    files = [f"seed-{result.seed}/{member}.parquet" for result in scored[:count]]
    return ChoiceResult(
        name=TITLES[member],
        detail="; ".join(_detail(member, result) for result in chosen[:count]),
        kind="model",
        test=tuple(map(ChoiceScores.from_json, scores)),
        validation=tuple(map(ChoiceScores.from_json, validation)),
        rankings=tuple(files) if scores else (),
    )


def _detail(member: str, result: TaskResult) -> str:
    """What was chosen on the validation users."""
    choice = result.choice
    assert choice
    if member == "ease":
        return f"ridge {choice.ease.ridges[0]:g}"
    if member == "network":
        return f"seed {result.seed}: epoch {choice.network.stop_after}"
    (ridge,), (power,) = choice.experts.ridges, choice.experts.powers
    return f"seed {result.seed}: ridge {ridge:g}, power {power:g}"


# -- Baselines -------------------------------------------------------------------------------------


def _baselines(inputs: ChoiceCompareInputs, folder: Storage) -> Iterator[ChoiceResult]:
    specs = choice_baseline_specs(inputs.selection.train.num_ratings, inputs.baselines)
    for spec in specs:
        logger.info(f"   baseline {spec.title}")
        yield _baseline(spec, inputs, folder)


def _baseline(
    spec: ChoiceBaselineSpec[Any], inputs: ChoiceCompareInputs, folder: Storage
) -> ChoiceResult:
    """Tune a baseline on the validation users, fit it, and score its rankings."""
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


# -- The truth, for synthetic data -----------------------------------------------------------------


@dataclass(frozen=True)
class _Truth(ChoiceModel):
    """The probabilities that choices were drawn with."""

    synthetic: SyntheticConfig

    def scores(self, known: Interactions) -> torch.Tensor:
        return torch.from_numpy(choice_oracle(self.synthetic, known.users).astype(np.float32))


def _oracle(inputs: ChoiceCompareInputs, folder: Storage) -> Iterator[ChoiceResult]:
    """What rankings by the true probabilities reach, if they are known."""
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


# -- Differences -----------------------------------------------------------------------------------


def _differences(
    inputs: ChoiceCompareInputs, entries: Sequence[ChoiceResult], served: str, folder: Storage
) -> Iterator[ChoiceDifference]:
    """Of the served member and each baseline, for both kinds of relevant movies, each of which is a
    family: intervals and p are corrected for its number of baselines."""
    holdout = inputs.final.test
    if not inputs.score_test or holdout is None:
        return
    for relevance in RELEVANCES:
        values = [
            UserValues(entry.name, user_values(entry, _COMPARED, relevance, holdout, folder))
            for entry in entries
        ]
        pairs = [(served, entry.name) for entry in entries if entry.kind == "baseline"]
        yield from choice_differences(
            values, pairs, RELEVANT[relevance], num_resamples=inputs.resamples, vary_seeds=True
        )
