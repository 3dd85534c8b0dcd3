"""What came of the searches: their best trials, their failures, and which settings mattered."""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from optuna.trial import TrialState

from ncf.config import LossName
from ray_jobs.config import Dimension, Member, TuneConfig
from ray_jobs.report import plots
from ray_jobs.report.document import Block, DataTable, Heading, Plot, ReportSection, Text
from ray_jobs.report.plots import Coordinate
from ray_jobs.results.run import Workspace
from ray_jobs.search.study import FEWEST_TRIALS, importances, study_of
from ray_jobs.stages.choice_search import members_to_search
from ray_jobs.training.telemetry import SEARCH_METRICS, SearchMetric, search_metric

Trials = Sequence[Mapping[str, Any]]
"""Rows of ``trials.parquet``."""

_DEFAULTS: Final = TuneConfig()
_BEST: Final = 5
_MEMBERS: Final[dict[Member, str]] = {"ease": "EASE", "network": "the network"}
_LABELS: Final = 84
"""Letters that fit beside each other below one scale of the parallel coordinates."""


def search_section(workspace: Workspace) -> Iterator[ReportSection]:
    """The section about the search, and about those of the losses, if there were any."""
    config = workspace.config

    def trials(of: str | None) -> Trials:
        rows: Trials = workspace.paths.search(of).trials.read_table().to_pylist()
        return rows

    blocks: list[Block] = []
    if config.tune.num_trials and config.wants_ratings:
        blocks += search_blocks(trials(None), config.tune.space, config.tune)
    if config.compare.trials_per_loss and config.wants_ratings:
        blocks += losses_blocks(
            {loss: trials(loss) for loss in config.compare.losses},
            search_metric(config.tune.metric),
        )
    if blocks:
        yield ReportSection("Search", tuple(blocks))
    for member in members_to_search(config) if config.wants_choices else ():
        tune = config.of_member(member).tune
        blocks = [
            _of_member(member, block) for block in search_blocks(trials(member), tune.space, tune)
        ]
        yield ReportSection(f"Search for the choice model: {_MEMBERS[member]}", tuple(blocks))


def _of_member(member: Member, block: Block) -> Block:
    """A block of a member's search, with names that no other search's blocks have."""
    if isinstance(block, Plot):
        return replace(block, name=f"{member}_{block.name}")
    if isinstance(block, DataTable):
        return replace(block, caption=f"{block.caption}: {_MEMBERS[member]}")
    return block


def search_blocks(
    trials: Trials, space: Mapping[str, Dimension], settings: TuneConfig = _DEFAULTS
) -> Iterator[Block]:
    """The results of one search over ``space``; at least one trial has not failed."""
    metric = search_metric(settings.metric)
    name = f"validation {metric.title}"
    states = Counter(trial["state"] for trial in trials)
    yield Text(
        f"{len(trials)} trials by Optuna's {_sampler(settings)} sampler: "
        f"{states['finished']} trained to their end, "
        f"{states['stopped']} stopped by {_scheduler(settings)} because they fell behind, "
        f"{states['failed']} failed. "
        f"Trials are compared by validation {metric.scale}; no test row was read."
    )
    errors = [trial[metric.key] for trial in trials if trial["state"] != "failed"]
    yield Plot(
        "search_history",
        f"Validation {metric.title} of each trial in the order of the search, and the best so far.",
        f"Dots for the {name} of {len(errors)} trials, and a line for the best so far, "
        f"which goes from {errors[0]:.4f} to {min(errors, key=metric.cost):.4f}",
        plots.search_history(errors, name, higher_is_better=metric.mode == "max"),
    )
    yield from _tables(trials, metric)
    if any(dimension.tables for dimension in space.values()):
        yield Text(
            "Some choices set several settings. Tables and plots show what was drawn for each "
            "setting, also where such a choice took its place; best_config.toml has what was used."
        )
    yield from _importances(trials, space, settings)
    if len(errors) > 1:
        yield from _parallel_coordinates(study_of(trials, space, metric=metric), settings)


def _tables(trials: Trials, metric: SearchMetric) -> Iterator[DataTable]:
    """The best trials, and all that failed."""
    failed = [trial for trial in trials if trial["state"] == "failed"]
    judged = [trial for trial in trials if trial["state"] != "failed"]
    keys = [name for name in trials[0] if name.startswith("config.")]
    names = tuple(key.split(".")[-1] for key in keys)
    yield DataTable(
        "The best trials",
        ("trial", f"validation {metric.title}", "best epoch", *names),
        tuple(
            (
                str(trial["trial"]),
                f"{trial[metric.key]:.4f}",
                str(trial["best_epoch"]),
                *(short(trial[key]) for key in keys),
            )
            for trial in sorted(judged, key=lambda t: metric.cost(t[metric.key]))[:_BEST]
        ),
    )
    if failed:
        yield DataTable(
            "Trials that failed",
            ("trial", *names, "failed with"),
            tuple(
                (str(trial["trial"]), *(short(trial[key]) for key in keys), trial["error"])
                for trial in failed
            ),
            words=(0, len(names) + 1),
        )


def _importances(
    trials: Trials, space: Mapping[str, Dimension], settings: TuneConfig
) -> Iterator[Block]:
    """Which settings mattered, over all trials and over those that were not stopped."""
    metric = search_metric(settings.metric)
    yield Heading("Which settings mattered")
    shares = importances(study_of(trials, space, stopped=TrialState.COMPLETE, metric=metric))
    if shares is None:
        yield Text(
            f"Not shown: it takes at least {FEWEST_TRIALS} trials with different errors to say "
            "anything about it (tune.num_trials)."
        )
        return
    finished = importances(study_of(trials, space, metric=metric))
    yield Text(
        "By fANOVA, as Optuna computes it: a random forest learns the validation "
        f"{metric.title} from the "
        "settings, and a setting's importance is the share of the forest's variance that it "
        "explains alone, over the whole range that was searched; shares are scaled to add up to 1. "
        f"A trial that {_scheduler(settings)} stopped counts with the error it had then, as it "
        "did for the sampler. "
        "Beside it the same for finished trials alone, which are those that kept up"
        + (
            f": there are fewer than {FEWEST_TRIALS}, too few. "
            if finished is None
            else "; where the two disagree, trust neither. "
        )
        + "What matters depends on the ranges, and the sampler does not try all of them evenly."
    )
    yield Plot(
        "importances",
        f"Importance of each setting for the validation {metric.title}, over all trials that "
        "did not fail.",
        "Bars for the importance of each setting: "
        + "; ".join(f"{name} {share:.2f}" for name, share in shares.items()),
        plots.bars(shares, "importance, fANOVA"),
    )
    yield DataTable(
        "Importance of the settings, fANOVA",
        ("setting", "all trials", "finished trials"),
        tuple(
            (name, f"{share:.3f}", f"{finished[name]:.3f}" if finished else "—")
            for name, share in shares.items()
        ),
    )


def _parallel_coordinates(study: Study, settings: TuneConfig) -> Iterator[Block]:
    judged = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    metric = search_metric(settings.metric)
    best = min(judged, key=lambda trial: metric.cost(trial.value))
    better = "lower" if metric.mode == "min" else "higher"
    described = ", ".join(f"{name} = {_label(value)}" for name, value in best.params.items())
    yield Heading("All trials")
    yield Plot(
        "parallel_coordinates",
        f"Parallel coordinates: a line for each trial, from its validation {metric.title} down "
        f"through its settings; the darker, the {better}. Thick: the best trial; dashed: stopped "
        f"by {_scheduler(settings)}.",
        f"Parallel coordinates of {len(judged)} trials. The best, with a "
        f"validation {metric.title} of {best.value:.4f}, has {described}",
        plots.parallel_coordinates(
            coordinates(study, metric), [trial.state == TrialState.PRUNED for trial in judged]
        ),
    )


def coordinates(
    study: Study, metric: SearchMetric = SEARCH_METRICS["rmse"]
) -> tuple[Coordinate, ...]:
    """Scales of the metric, best value first, and of each setting, with every trial's place."""
    judged = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    costs = [metric.cost(trial.value) for trial in judged]
    low, high = min(costs), max(costs)
    places = tuple((cost - low) / (high - low) if high > low else 0.0 for cost in costs)
    ends = {0.0: f"{metric.cost(low):.4f}", 1.0: f"{metric.cost(high):.4f}"}
    scale = Coordinate(f"validation {metric.title}", places, ends)
    return scale, *(
        Coordinate(
            name.split(".", 1)[-1],
            tuple(_place(distribution, trial.params[name]) for trial in judged),
            _ticks(distribution),
        )
        for name, distribution in judged[0].distributions.items()
    )


def _place(distribution: BaseDistribution, value: Any) -> float:
    """Where a value is between the lowest (0) and the highest (1), or the first and last choice."""
    if distribution.single():
        return 0.5
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / (len(distribution.choices) - 1)
    low, high = distribution.low, distribution.high
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _ticks(distribution: BaseDistribution) -> dict[float, str]:
    """What is written below a scale, by the place."""
    if isinstance(distribution, CategoricalDistribution):
        width = max(8, _LABELS // len(distribution.choices))
        return {
            _place(distribution, choice): textwrap.fill(_label(choice), width)
            for choice in distribution.choices
        }
    ends = distribution.low, distribution.high
    return {_place(distribution, end): f"{end:.3g}" for end in ends}


def _label(value: Any) -> str:
    """A choice as text; lists and tables travel as JSON."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        return _in_words(json.loads(value))
    return short(value)


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        settings = (f"{key.split('.')[-1]} {_in_words(v)}" for key, v in value.items())
        return "; ".join(settings) or "as configured"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else short(value)


def losses_blocks(
    trials: Mapping[LossName, Trials], metric: SearchMetric = SEARCH_METRICS["rmse"]
) -> Iterator[Block]:
    """What came of the searches that losses had for themselves; ``trials`` of each of them."""
    yield Heading("The searches of single losses")
    yield Text("Each loss of the comparison had a search of its own, with the same space.")
    yield DataTable(
        "Searches of single losses",
        (
            "loss",
            "trials",
            "finished",
            "stopped",
            "failed",
            f"best {metric.title}",
            "first failed with",
        ),
        tuple((loss, *_search_row(of_loss, metric)) for loss, of_loss in trials.items()),
        words=(0, 6),
    )


def _search_row(trials: Trials, metric: SearchMetric) -> tuple[str, ...]:
    states = Counter(trial["state"] for trial in trials)
    values = [trial[metric.key] for trial in trials if trial["state"] != "failed"]
    best = min(values, key=metric.cost)
    reasons = (trial["error"] for trial in trials if trial["state"] == "failed")
    return (
        str(len(trials)),
        *(str(states[state]) for state in ("finished", "stopped", "failed")),
        f"{best:.4f}",
        next(reasons, "—"),
    )


def _sampler(settings: TuneConfig) -> str:
    return settings.sampler.upper() if settings.sampler in ("tpe", "gp") else settings.sampler


def _scheduler(settings: TuneConfig) -> str:
    return "ASHA" if settings.scheduler == "asha" else f"the scheduler {settings.scheduler}"


def short(value: Any) -> str:
    """A setting's value in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
