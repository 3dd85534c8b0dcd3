"""The members of the compared choice model: their training with several seeds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from foundation.storage import Storage
from ncf.choice_config import ChoiceConfig
from ncf.evaluation.choice_scores import ChoiceScores
from ray_jobs.results.choices import ChoiceResult, SeedResult
from ray_jobs.results.stored_results import StoredResults
from ray_jobs.stages.choice_inputs import ChoiceCompareInputs, seed_name
from ray_jobs.training.run_tasks import Train
from ray_jobs.training.tasks import ChoiceTask, TrainingResult, rankings_file

logger = logging.getLogger(__name__)

TITLES: Final = {
    "ease": "EASE with content and context",
    "network": "choice network",
    "experts": "product of both",
}
"""Names of the members in tables."""


def model_results(
    inputs: ChoiceCompareInputs, stored: StoredResults[SeedResult], trained: Train
) -> list[ChoiceResult]:
    """A row for each member that is part of the configured one; what is not stored is trained."""
    keys = inputs.seed_keys
    found = {seed: stored.find(seed_name(seed), keys[seed_name(seed)]) for seed in inputs.seeds}
    missing = [seed for seed, result in found.items() if result is None]
    if len(missing) < len(found):
        logger.info(f"   {len(found) - len(missing)} choice model(s) are unchanged")
    for result in _train(inputs, missing, stored.files, trained):
        stored.store(keys[result.name], result)
        found[result.seed] = result
    members = [m for m in TITLES if inputs.choice.member in (m, "experts")]
    return [_row(member, [each for each in found.values() if each]) for member in members]


def _train(
    inputs: ChoiceCompareInputs, seeds: Sequence[int], folder: Storage, trained: Train
) -> Iterator[SeedResult]:
    """Train with each seed, and yield the results as they are complete."""
    tasks = [_selection(inputs, seed, folder) for seed in seeds]
    refits = [_refit(inputs, task, folder) for task in tasks] if inputs.data.refit else tasks
    waiting = dict(zip((task.name for task in refits), tasks, strict=True))
    results = dict[str, TrainingResult]()
    for result in trained([*tasks, *refits] if inputs.data.refit else tasks):
        results[result.name] = result
        if result.name in waiting:
            yield _seed_result(results[waiting[result.name].name], result)


def _selection(inputs: ChoiceCompareInputs, seed: int, folder: Storage) -> ChoiceTask:
    """The training that chooses ridge, epoch and power."""
    network = inputs.choice.network.model_copy(update={"seed": seed})
    is_scored = inputs.score_test and not inputs.data.refit
    return ChoiceTask(
        seed_name(seed),
        inputs.data.selection,
        inputs.choice.model_copy(update={"network": network}),
        inputs.protocol,
        score_test=is_scored,
        rankings=folder if is_scored else None,
    )


def _refit(inputs: ChoiceCompareInputs, task: ChoiceTask, folder: Storage) -> ChoiceTask:
    """The same on the rows that include the validation rows."""
    return replace(
        task,
        name=f"{task.name}, refit",
        prepared=inputs.data.final,
        score_test=True,
        rankings=folder,
        as_chosen_in=task.name,
    )


def _seed_result(chosen: TrainingResult, scored: TrainingResult) -> SeedResult:
    """Of the training that chose the settings, and of the one that is scored."""
    assert chosen.choice
    test = _scores(scored.test)
    return SeedResult(
        name=chosen.name,
        seed=chosen.seed,
        choice=chosen.choice.model_dump(mode="json"),
        validation=_scores(chosen.validation),
        test=test,
        rankings={member: rankings_file(chosen.seed, member) for member in test or ()},
    )


def _scores(of_members: dict[str, Any] | None) -> dict[str, ChoiceScores] | None:
    if of_members is None:
        return None
    return {member: ChoiceScores.from_json(scores) for member, scores in of_members.items()}


def _row(member: str, results: Sequence[SeedResult]) -> ChoiceResult:
    # EASE does not depend on the seed.
    of_seeds = results[:1] if member == "ease" else results
    return ChoiceResult(
        name=TITLES[member],
        detail="; ".join(_detail(member, result) for result in of_seeds),
        kind="model",
        test=tuple(result.test[member] for result in of_seeds if result.test),
        validation=tuple(result.validation[member] for result in of_seeds if result.validation),
        rankings=tuple(result.rankings[member] for result in of_seeds if result.rankings),
    )


def _detail(member: str, result: SeedResult) -> str:
    """What was chosen on the validation users."""
    choice = ChoiceConfig.model_validate(result.choice)
    if member == "ease":
        return f"ridge {choice.ease.ridges[0]:g}"
    if member == "network":
        return f"seed {result.seed}: epoch {choice.network.stop_after}"
    (ridge,), (power,) = choice.experts.ridges, choice.experts.powers
    return f"seed {result.seed}: ridge {ridge:g}, power {power:g}"
