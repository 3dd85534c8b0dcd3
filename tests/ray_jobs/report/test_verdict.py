"""The sentence at the beginning of a report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ncf.evaluation.assessment import Assessment
from ncf.evaluation.choice_significance import ChoiceDifference
from ncf.evaluation.significance import Difference
from ray_jobs.report.document import DataTable, Report, ReportSection
from ray_jobs.report.sections.comparison import comparison_section
from ray_jobs.report.verdict import choice_verdict, rating_verdict
from ray_jobs.results.choices import ChoiceComparison
from ray_jobs.results.comparison import Comparison, Kind, ModelResult


def entry(name: str, kind: Kind, rmse: float) -> ModelResult:
    errors = {"rmse": rmse, "mae": rmse / 2, "r2": 0.5}
    decayed = {"rmse": 9 - rmse, "mae": 1.0, "r2": 0.5}
    return ModelResult(name, "", kind, ({**errors, "decayed": decayed},), ())


COMPARISON = Comparison(
    entries=(
        entry("trees", "baseline", 0.8),
        entry("mse", "model", 0.9),
        entry("undefined", "baseline", float("nan")),
        entry("l1", "model", 0.7),
    ),
    scale="stars",
    num_test=10,
    trials_per_loss=0,
    refitted=False,
    model="l1",
    baseline="trees",
    assessment=Assessment(3, (), (), ()),
)


def compared(
    first: str, second: str, value: float, low: float, high: float, p: float = 0.01
) -> Comparison:
    difference = Difference(first, second, "rmse", value, low, high, p, low, high, p)
    return replace(COMPARISON, assessment=replace(COMPARISON.assessment, differences=(difference,)))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            compared("l1", "trees", -0.1, -0.12, -0.08),
            "Ratings: "
            "l1 is better than the best baseline, trees: its test RMSE is lower by 0.1000 stars "
            "(95 % interval 0.0800 to 0.1200).",
        ),
        (
            compared("trees", "l1", 0.1, 0.08, 0.12),
            "Ratings: "
            "l1 is better than the best baseline, trees: its test RMSE is lower by 0.1000 stars "
            "(95 % interval 0.0800 to 0.1200).",
        ),
        (
            compared("l1", "trees", 0.1, 0.08, 0.12),
            "Ratings: "
            "l1 is worse than the best baseline, trees: its test RMSE is higher by 0.1000 stars "
            "(95 % interval 0.0800 to 0.1200).",
        ),
        (
            compared("trees", "l1", 0.01, -0.02, 0.04, p=0.5),
            "Ratings: "
            "l1 and the best baseline, trees, cannot be distinguished by their test RMSE: the "
            "difference is -0.0100 stars (95 % interval -0.0400 to +0.0200).",
        ),
        (
            COMPARISON,
            "Ratings: "
            "l1 has the test RMSE 0.7000; the best baseline, trees, 0.8000. The difference was not "
            "tested.",
        ),
    ],
)
def test_the_verdict_says_which_is_better_and_by_how_much(found: Comparison, expected: str) -> None:
    assert rating_verdict(found) == expected


def test_choices_are_compared_with_the_baseline_that_is_nearest() -> None:
    def difference(other: str, value: float, relevant: str = "4 stars or more") -> ChoiceDifference:
        ends = value - 0.01, value + 0.01
        return ChoiceDifference("served", other, relevant, value, *ends, 0.01, *ends, 0.01)

    comparison = ChoiceComparison(
        (),
        "served",
        10,
        "ndcg@10",
        False,
        "test",
        0,
        3,
        # Of all rated movies another baseline is nearer, which is another question.
        (
            difference("popular", 0.2),
            difference("EASE", 0.02),
            difference("popular", 0.015, "all"),
            difference("EASE", 0.05, "all"),
        ),
    )
    assert choice_verdict(comparison) == (
        "Choices: "
        "served ranks better than the best baseline, EASE: its NDCG@10 (4 stars or more) is higher "
        "by 0.0200 (95 % interval 0.0100 to 0.0300)."
    )
    of_all = replace(comparison, differences=comparison.differences[2:])
    assert "popular: its NDCG@10 (all) is higher by 0.0150" in str(choice_verdict(of_all))
    worse = replace(comparison, differences=(difference("EASE", -0.02),))
    assert str(choice_verdict(worse)).startswith(
        "Choices: served ranks worse than the best baseline, EASE: its NDCG@10 (4 stars or more) "
        "is lower by 0.0200"
    )
    assert choice_verdict(replace(comparison, differences=())) is None


def test_errors_are_sorted_and_models_stand_out() -> None:
    tables = [b for b in comparison_section(COMPARISON).blocks if isinstance(b, DataTable)]
    assert [row[0] for row in tables[0].rows] == ["l1", "trees", "mse", "undefined"]
    assert tables[0].marked == (0, 2)
    other = next(table for table in tables[1:] if "decay" in table.caption)
    assert [row[0] for row in other.rows] == ["mse", "trees", "l1", "undefined"]


def test_the_verdict_comes_first_and_figures_have_theirs_to_compare() -> None:
    table = DataTable("Errors", ("model", "RMSE"), (("ours", "1"), ("theirs", "2")), marked=(0,))
    report = Report(
        "A run",
        ("made up",),
        (("RMSE", "0.8", "EASE: 0.9"), ("Rows", "3")),
        (ReportSection("Errors", (table,)),),
        verdicts=("ours is better.",),
    )
    text, page = report.markdown("plots"), report.html()
    assert text.index("ours is better.") < text.index("made up")
    assert "- RMSE: **0.8** (EASE: 0.9)\n- Rows: **3**\n" in text
    assert "| **ours** | 1 |" in text
    assert "| theirs | 2 |" in text
    assert page.index('<p class="verdict">ours is better.</p>') < page.index("made up")
    assert '<dd class="other">EASE: 0.9</dd>' in page
    assert page.count("<tr class=marked>") == 1
