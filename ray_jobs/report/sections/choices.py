"""Rankings of choice models and baselines, the significance of their differences, and the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean
from typing import Final

from ncf.evaluation.choice_scores import ChoiceScores, MeanScores, Relevance
from ncf.evaluation.diversity import Diversity
from ncf.evaluation.ranking import RANKED, RELEVANT_STARS
from ray_jobs.report.document import Block, DataTable, Heading, ReportSection, Text
from ray_jobs.report.sections.search import short
from ray_jobs.results.choices import (
    CHOICE_DIFFERENCE_COLUMNS,
    MEMBERS,
    ChoiceComparison,
    ChoiceMetrics,
    ChoiceResult,
    choice_difference_cells,
    shown,
)
from ray_jobs.stages.choice_search import BestChoice

_NAMES: Final = {
    "ndcg": "NDCG",
    "recall": "recall",
    "map": "MAP",
    "hit_rate": "hit rate",
    "mrr": "MRR",
}
_RELEVANT: Final[dict[Relevance, str]] = {
    "liked": f"held-out ratings of {RELEVANT_STARS:g} stars or more",
    "all": "all held-out ratings",
}


def choices_sections(comparison: ChoiceComparison) -> Iterator[ReportSection]:
    """The comparison, with differences and slices of the served model."""
    yield ReportSection(
        "Comparison of choice models and baselines",
        (
            Text(_what_was_ranked(comparison)),
            *(_metrics_table(comparison, relevance) for relevance in _RELEVANT),
            _diversity_table(comparison),
            DataTable(
                "How each choice model was fitted",
                ("model", "settings"),
                tuple((e.name, e.detail) for e in comparison.entries),
                words=(0, 1),
            ),
            *_slices(comparison),
        ),
    )
    if comparison.differences:
        yield ReportSection("Is the choice model better?", tuple(_differences(comparison)))
    elif comparison.scored == "test":
        text = "Fewer than two test users have a relevant movie, so differences have no intervals."
        yield ReportSection("Is the choice model better?", (Text(text),))


def _what_was_ranked(comparison: ChoiceComparison) -> str:
    given = (
        f" Of each user's {comparison.scored} ratings the oldest {comparison.num_given} were given "
        "to the models, without training on them."
        if comparison.num_given
        else ""
    )
    seeds = "mean ± standard deviation over seeds"
    return (
        f"For {comparison.num_users:,} {comparison.scored} users, every movie that the user had "
        f"not rated and that has at least {comparison.min_ratings} training ratings was ranked; no "
        "movie was sampled. Relevant movies without as many ratings cannot be found, and count as "
        f"not found.{given} Settings were chosen by {comparison.metric} on validation users; "
        f"{seeds}. What people rate is what they came to see, so these figures say how well models "
        "tell what is chosen, not what would be liked if it were."
    )


def _metrics_table(comparison: ChoiceComparison, relevance: Relevance) -> DataTable:
    columns = [("ndcg", 5), ("ndcg", 10), ("ndcg", 20), ("recall", 10), ("recall", 20)]
    columns += [("map", 10), ("hit_rate", 10), ("mrr", 10)]
    rows = tuple(
        (
            entry.name,
            *(shown(comparison.figure(entry, f"{name}@{at}", relevance)) for name, at in columns),
        )
        for entry in comparison.entries
    )
    header = ("model", *(f"{_NAMES[name]}@{at}" for name, at in columns))
    return DataTable(f"Rankings; relevant are {_RELEVANT[relevance]}", header, rows)


def _diversity_table(comparison: ChoiceComparison) -> DataTable:
    rows = tuple(
        (entry.name, *_diversity_cells(_scores(comparison, entry))) for entry in comparison.entries
    )
    header = ("model", "coverage", "Gini", "log popularity", "novelty", "genre distance")
    return DataTable(f"What is among the first {RANKED}", header, rows)


def _scores(comparison: ChoiceComparison, entry: ChoiceResult) -> Sequence[ChoiceScores]:
    return entry.validation if comparison.scored == "validation" else entry.test


def _diversity_cells(scores: Sequence[ChoiceScores]) -> tuple[str, ...]:
    found = [each.diversity for each in scores if each.diversity]
    names = ("coverage", "gini", "log_popularity", "novelty", "genre_distance")
    return tuple(_mean(found, name) for name in names)


def _mean(found: Sequence[Diversity], name: str) -> str:
    values = [value for each in found if (value := getattr(each, name)) is not None]
    return f"{mean(values):.3f}" if values else "–"


def _slices(comparison: ChoiceComparison) -> Iterator[Block]:
    """Of the first seed of the served model, and of the baseline with the best rankings."""
    served = comparison.entry(comparison.served)
    scores = [each.liked for each in _scores(comparison, served) if each.liked]
    if scores:
        yield Heading(f"By kind of user and of movie: {served.name}")
        yield from _slice_tables(scores[0])


def _slice_tables(scores: MeanScores) -> Iterator[DataTable]:
    yield DataTable(
        f"NDCG@{RANKED} by the user's number of known ratings",
        ("known ratings", "users", f"NDCG@{RANKED}"),
        tuple((s.label, f"{s.num_users:,}", f"{s.ndcg:.4f}") for s in scores.by_activity),
    )
    yield DataTable(
        f"Recall@{RANKED} by the movie's number of training ratings",
        ("training ratings", "relevant ratings", f"recall@{RANKED}"),
        tuple((s.label, f"{s.num_ratings:,}", f"{s.recall:.4f}") for s in scores.by_popularity),
    )


def _differences(comparison: ChoiceComparison) -> Iterator[Block]:
    yield Text(
        "Paired bootstrap over users, with the variation over training seeds; intervals and p are "
        "corrected for the number of baselines (Bonferroni and Holm)."
    )
    yield DataTable(
        f"NDCG@{RANKED} of the served model minus that of each baseline",
        CHOICE_DIFFERENCE_COLUMNS,
        tuple(choice_difference_cells(each) for each in comparison.differences),
        words=(0, 1, 5),
    )


def choice_model_section(metrics: ChoiceMetrics, best: BestChoice) -> ReportSection:
    """How the final choice model was made, and its figures."""
    chosen_by = (
        f"Chosen by {best.num_trials} trials: "
        + ", ".join(f"{key} = {short(value)}" for key, value in best.parameters.items())
        + "."
        if best.parameters
        else "The configuration as it was given; no search was made."
    )
    how = (
        "Fitted to training and validation rows, with the ridge, epoch and power that were best on "
        "validation users for a model without them; the validation figures are that model's."
        if metrics.refit_on_validation
        else "Fitted to the training rows."
    )
    rows = tuple(
        (f"{MEMBERS[member]}, {split} users", *_figures(scores))
        for split, members in (("validation", metrics.validation), ("test", metrics.test))
        for member, scores in (members or {}).items()
    )
    header = ("ranked by", f"NDCG@{RANKED}", f"NDCG@{RANKED}, all", "coverage", "Gini")
    table = DataTable("Rankings of the final choice model", header, rows)
    return ReportSection("The final choice model", (Text(chosen_by), Text(how), table))


def _figures(scores: ChoiceScores) -> tuple[str, ...]:
    ndcg = (
        f"{found.metrics[f'ndcg@{RANKED}']:.4f}" if found else "–"
        for found in (scores.liked, scores.all)
    )
    spread = scores.diversity
    return (*ndcg, *((f"{spread.coverage:.3f}", f"{spread.gini:.3f}") if spread else ("–", "–")))
