"""The conclusion of a comparison in a sentence, for the beginning of a report."""

from __future__ import annotations

from ncf.evaluation.significance import PairedDifference
from ray_jobs.results.choices import RELEVANT, ChoiceComparison
from ray_jobs.results.comparison import Comparison, shown


def rating_verdict(comparison: Comparison) -> str:
    """How the model that the report shows compares with the best baseline."""
    return f"Ratings: {_of_ratings(comparison)}"


def choice_verdict(comparison: ChoiceComparison) -> str | None:
    """How the served choice model compares with the baseline that ranks best; None if no baseline
    was compared."""
    return f"Choices: {_of_choices(comparison)}" if comparison.differences else None


def _of_ratings(comparison: Comparison) -> str:
    found = next(
        (
            each
            for each in comparison.assessment.differences
            if each.metric == "rmse"
            and {each.first, each.second} == {comparison.model, comparison.baseline}
        ),
        None,
    )
    unit = "stars" if comparison.scale == "stars" else "on the scale rating × decay weight"
    if found is None:
        return _figures(comparison)
    what = f"the best baseline, {comparison.baseline}"
    value, low, high = _from_first(found, comparison.model)
    if found.better is None:
        return (
            f"{comparison.model} and {what}, cannot be distinguished by their test RMSE: the "
            f"difference is {value:+.4f} {unit} (95 % interval {low:+.4f} to {high:+.4f})."
        )
    lower = found.better == comparison.model
    ends = sorted((abs(low), abs(high)))
    return (
        f"{comparison.model} is {'better' if lower else 'worse'} than {what}: its test RMSE is "
        f"{'lower' if lower else 'higher'} by {abs(value):.4f} {unit} (95 % interval "
        f"{ends[0]:.4f} to {ends[1]:.4f})."
    )


def _of_choices(comparison: ChoiceComparison) -> str:
    # Of movies of 4 stars or more, which the tiles show, if anyone has a relevant one.
    metrics = [each.metric for each in comparison.differences]
    metric = RELEVANT["liked"] if RELEVANT["liked"] in metrics else metrics[0]
    of_metric = [each for each in comparison.differences if each.metric == metric]
    # The smallest lead is over the best baseline.
    nearest = min(of_metric, key=lambda d: _from_first(d, comparison.served)[0])
    value, low, high = _from_first(nearest, comparison.served)
    other = nearest.second if nearest.first == comparison.served else nearest.first
    what = f"the best baseline, {other}"
    if nearest.better is None:
        return (
            f"{comparison.served} and {what}, cannot be distinguished by NDCG@10 ({metric}): the "
            f"difference is {value:+.4f} (95 % interval {low:+.4f} to {high:+.4f})."
        )
    word = "better" if nearest.better == comparison.served else "worse"
    ends = sorted((abs(low), abs(high)))
    return (
        f"{comparison.served} ranks {word} than {what}: its NDCG@10 ({metric}) is "
        f"{'higher' if word == 'better' else 'lower'} by {abs(value):.4f} (95 % interval "
        f"{ends[0]:.4f} to {ends[1]:.4f})."
    )


def _from_first(difference: PairedDifference, name: str) -> tuple[float, float, float]:
    """Value and corrected interval of the difference of ``name`` and the other."""
    value, low, high = difference.value, difference.corrected_low, difference.corrected_high
    return (value, low, high) if difference.first == name else (-value, -high, -low)


def _figures(comparison: Comparison) -> str:
    """Errors side by side, where their difference was not tested."""
    figures = {entry.name: shown(*comparison.figure(entry, "rmse")) for entry in comparison.entries}
    model, baseline = comparison.model, comparison.baseline
    return (
        f"{model} has the {comparison.scored} RMSE {figures.get(model, 'unknown')}; the best "
        f"baseline, {baseline}, {figures.get(baseline, 'unknown')}. The difference was not tested."
    )
