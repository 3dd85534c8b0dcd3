"""Which models are compared with each other, and how the report tells it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ncf.evaluation.assessment import Assessment
from ncf.evaluation.significance import UserErrors, differences
from ray_jobs.report.document import Report, ReportSection
from ray_jobs.report.sections.comparison import differences_blocks
from ray_jobs.results.comparison import Comparison, Kind, ModelResult, pairs

RNG = np.random.default_rng(1)
USERS = np.repeat(np.arange(30), 5)


def entry(name: str, kind: Kind, seeds: int = 1) -> ModelResult:
    return ModelResult(name, "", kind, ({"rmse": 1.0},) * seeds, ())


ENTRIES = (
    entry("mean", "baseline"),
    entry("bias", "baseline"),
    entry("mse", "model", 2),
    entry("l1", "model", 2),
    entry("mse, mean", "ensemble"),
    entry("l1, mean", "ensemble"),
)


def told(entries: tuple[ModelResult, ...], compared: list[tuple[str, str]]) -> str:
    sums = [
        UserErrors.of(e.name, USERS, 30, RNG.normal(size=(len(e.test), len(USERS))))
        for e in entries
    ]
    found = differences(sums, compared, num_resamples=100)
    blocks = tuple(differences_blocks(found, entries, 30))
    return Report("A run", (), (), (ReportSection("Differences", blocks),)).markdown("plots")


def test_losses_and_ensembles_are_compared_with_the_baseline_and_losses_with_each_other() -> None:
    assert pairs(ENTRIES, "bias") == [
        ("mse", "bias"),
        ("l1", "bias"),
        ("mse, mean", "bias"),
        ("l1, mean", "bias"),
        ("mse", "l1"),
    ]
    assert pairs(ENTRIES[:3], "mean") == [("mse", "mean")]


def test_all_others_are_compared_with_each_reference_once() -> None:
    assert pairs(ENTRIES[:4], "mean", ["l1", "bias"]) == [
        ("mean", "l1"),
        ("bias", "l1"),
        ("mse", "l1"),
        ("mean", "bias"),
        ("mse", "bias"),
    ]


def test_named_pairs_are_the_only_ones() -> None:
    assert pairs(ENTRIES, "mean", ["l1"], [("mse", "l1")]) == [("mse", "l1")]


def test_blends_are_compared_with_the_baseline_alone() -> None:
    found = pairs((*ENTRIES[:3], entry("both", "blend")), "mean")
    assert found == [("mse", "mean"), ("both", "mean")]


def test_figures_are_those_of_the_scored_rows() -> None:
    """Means 1.5 and 3.5; standard deviations by hand, the square root of a half."""
    test, validation = (tuple({"rmse": v} for v in values) for values in ((3.0, 4.0), (1.0, 2.0)))
    both = ModelResult("a", "", "model", test, validation)
    scored = Comparison((both,), "stars", 20, 0, True, "a", "a", Assessment(0, (), (), ()))

    assert scored.figure(both, "rmse") == pytest.approx((3.5, 0.5**0.5))
    assert (scored.num_scored, scored.num_seeds(both)) == (20, 2)
    choosing = replace(scored, scored="validation", num_test=0, num_validation=10)
    alone = replace(both, test=())
    assert choosing.figure(alone, "rmse") == pytest.approx((1.5, 0.5**0.5))
    assert (choosing.num_scored, choosing.num_seeds(alone)) == (10, 2)


def test_the_report_says_for_how_many_comparisons_it_corrects() -> None:
    text = told(ENTRIES, pairs(ENTRIES, "bias"))

    assert "for all 10 comparisons at once (Bonferroni)" in text
    assert text.count("| l1, mean − bias |") == 2
    assert "A mean of seeds counts as one model" in text
    assert "the variation between training seeds is included" in text
    alone = tuple(replace(e, test=e.test[:1]) for e in ENTRIES[:3])
    text = told(alone, pairs(alone, "bias"))
    assert "for all 2 comparisons at once" in text
    assert "A mean of seeds" not in text
    assert "With one training seed each" in text


def test_without_differences_nothing_is_claimed() -> None:
    blocks = tuple(differences_blocks((), ENTRIES, 1))

    text = Report("A run", (), (), (ReportSection("Differences", blocks),)).markdown("plots")
    assert "The test rows have only one user, so differences cannot be tested" in text
    assert "Bonferroni" not in text
