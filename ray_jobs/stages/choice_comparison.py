"""Compare the members of the choice model, several seeds each, with baselines.

All models are fitted to the training rows, their settings chosen on the validation users' rankings,
and scored once on the test users'; with ``compare.refit_on_validation`` they are first fitted again
to both. The served member is called better than a baseline only if their difference on the same
users is significant (``ncf.evaluation.choice_significance``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from foundation.console import show
from foundation.storage import Storage
from ingest.raw_data import RawData
from ncf.evaluation.choice_significance import (
    ChoiceDifference,
    UserValues,
    choice_differences,
    num_scored_users,
)
from ray_jobs.results.choices import (
    RELEVANCES,
    RELEVANT,
    ChoiceComparison,
    ChoiceResult,
    SeedResult,
    choice_differences_table,
    choices_table,
    user_values,
)
from ray_jobs.results.paths import RunPaths
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage
from ray_jobs.results.stored_results import StoredResults, delete_all_but
from ray_jobs.stages.choice_inputs import ChoiceCompareInputs
from ray_jobs.stages.choice_search import BestChoice
from ray_jobs.stages.compared_choice_baselines import baseline_task, oracle_result
from ray_jobs.stages.compared_choice_models import TITLES, model_results
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.training.run_tasks import Run, run_tasks, train_beside
from ray_jobs.training.tasks import CallResult, CallTask
from ray_jobs.training.workers import Workers

_COMPARED: Final = "ndcg@10"
"""The metric whose differences are tested."""

logger = logging.getLogger(__name__)


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
        _compare,
        paths=paths,
        run=partial(run_tasks, workers=workers, config=config),
        force=workspace.force,
    )
    outputs = (paths.choice_comparison, paths.rankings)
    workspace.update(Stage("compare-choices", inputs, outputs, work))
    comparison = paths.choice_comparison.read_as(ChoiceComparison, "compare again with --force")
    show(choices_table(comparison))
    if comparison.differences:
        show(choice_differences_table(comparison))
    return comparison


def _compare(inputs: ChoiceCompareInputs, paths: RunPaths, run: Run, *, force: bool) -> None:
    """The work of the stage.

    Args:
        inputs: what the comparison depends on.
        paths: where it goes.
        run: does tasks.
        force: do not use results of single models that an earlier comparison has stored.
    """
    of_seeds = StoredResults(SeedResult, paths.compared_choices / "seeds", paths.rankings)
    of_baselines = StoredResults(ChoiceResult, paths.compared_choices / "baselines", paths.rankings)
    paths.choice_comparison.delete()
    paths.rankings.make_folder()
    kept = of_seeds.keep_only({} if force else inputs.seed_keys)
    kept |= of_baselines.keep_only({} if force else inputs.baseline_keys)
    delete_all_but(kept, paths.rankings)
    baselines = _Baselines(inputs, of_baselines)
    train = train_beside(baselines.missing(), run, baselines.store)
    models = model_results(inputs, of_seeds, train)
    entries = (*baselines.results(), *models, *oracle_result(inputs, paths.rankings))
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


@dataclass
class _Baselines:
    """The results of all baselines; those that are not stored are made beside the models."""

    inputs: ChoiceCompareInputs
    stored: StoredResults[ChoiceResult]

    def __post_init__(self) -> None:
        self._keys = self.inputs.baseline_keys
        self._found = {title: self.stored.find(title, key) for title, key in self._keys.items()}

    def missing(self) -> list[CallTask]:
        """What makes those that are not stored."""
        return [
            baseline_task(spec, self.inputs, self.stored.files)
            for spec in self.inputs.specs
            if not self._found[spec.title]
        ]

    def store(self, call: CallResult) -> None:
        """Store a result as soon as it is there."""
        result: ChoiceResult = call.value
        self.stored.store(self._keys[result.name], result)
        self._found[result.name] = result

    def results(self) -> list[ChoiceResult]:
        """All of them, in the order of the specs."""
        return [result for result in self._found.values() if result]


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
        if num_scored_users(values) < 2:
            logger.info(
                "   note: fewer than two test users have a relevant movie "
                f"({RELEVANT[relevance]}), so differences have no intervals"
            )
            continue
        pairs = [(served, entry.name) for entry in entries if entry.kind == "baseline"]
        yield from choice_differences(
            values, pairs, RELEVANT[relevance], num_resamples=inputs.resamples, vary_seeds=True
        )
