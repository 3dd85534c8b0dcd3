"""What the report says of a search, from records of trials that are written here."""

from __future__ import annotations

import json
import math
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from ray_jobs.config import Dimension, TuneConfig
from ray_jobs.report.document import Plot, Report, ReportSection
from ray_jobs.report.sections.search import coordinates, losses_blocks, search_blocks
from ray_jobs.search.study import importances, study_of
from ray_jobs.training.telemetry import SEARCH_METRICS

SPACE = {
    "train.learning_rate": Dimension(low=0.001, high=0.1, log=True),
    "train.batch_size": Dimension(low=16, high=32, integer=True),
    "model.hidden_dims": Dimension(choices=((64, 32), (), (128,))),
}
DIMS = ("[64, 32]", "[]", "[128]")


def trials(number: int) -> list[dict[str, Any]]:
    """Every fifth failed, of the others every third was stopped; the rate is what matters."""
    found = []
    for n in range(number):
        rate, size = 0.001 * 10 ** (2 * (n * 7 % number) / number), 16 + n * 5 % 17
        state = "failed" if n % 5 == 4 else "stopped" if n % 3 == 2 else "finished"
        error = 0.8 + abs(math.log10(rate) + 2) / 10 + size / 5000
        row = {
            "trial": n + 1,
            "state": state,
            "error": f"reason {n}" if state == "failed" else None,
            "best_validation_rmse": None if state == "failed" else error,
            "best_epoch": 2,
            "config.train.learning_rate": rate,
            "config.train.batch_size": size,
            "config.model.hidden_dims": DIMS[n % 3],
        }
        found.append(row)
    return found


def built_independently(rows: list[dict[str, Any]], *, with_stopped: bool) -> optuna.Study:
    study = optuna.create_study(direction="minimize")
    distributions = {
        "train.learning_rate": FloatDistribution(0.001, 0.1, log=True),
        "train.batch_size": IntDistribution(16, 32),
        "model.hidden_dims": CategoricalDistribution(DIMS),
    }
    for row in rows:
        if row["state"] == "finished" or (with_stopped and row["state"] == "stopped"):
            study.add_trial(
                optuna.create_trial(
                    value=row["best_validation_rmse"],
                    params={name: row[f"config.{name}"] for name in distributions},
                    distributions=distributions,
                )
            )
    return study


def text_of(blocks: Any) -> str:
    return Report("A run", (), (), (ReportSection("Search", tuple(blocks)),)).markdown("plots")


def test_a_study_has_all_trials_with_their_states() -> None:
    study = study_of(trials(10), SPACE)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.FAIL) == 2
    assert states.count(TrialState.PRUNED) == 3  # trials 3, 6 and 9
    assert states.count(TrialState.COMPLETE) == 5
    assert study.best_value == min(
        t["best_validation_rmse"] for t in trials(10) if t["state"] == "finished"
    )


@pytest.mark.parametrize("with_stopped", [True, False])
def test_importances_are_optunas(with_stopped: bool) -> None:
    rows = trials(40)
    stopped = TrialState.COMPLETE if with_stopped else TrialState.PRUNED

    found = importances(study_of(rows, SPACE, stopped=stopped))

    expected = get_param_importances(
        built_independently(rows, with_stopped=with_stopped),
        evaluator=FanovaImportanceEvaluator(seed=0),
    )
    assert found == pytest.approx(expected)
    assert found is not None
    assert next(iter(found)) == "train.learning_rate"
    assert found["train.learning_rate"] > 0.5
    assert found == importances(study_of(rows, SPACE, stopped=stopped))


def test_importances_of_few_trials_are_refused() -> None:
    assert importances(study_of(trials(12), SPACE)) is None  # 6 finished
    text = text_of(search_blocks(trials(10), SPACE))
    assert "Not shown: it takes at least 10 trials with different errors" in text
    assert "plots/importances.png" not in text
    same = [row | {"best_validation_rmse": 0.9, "state": "finished"} for row in trials(20)]
    assert importances(study_of(same, SPACE)) is None


def test_importances_are_shown_for_all_trials_and_for_finished_ones() -> None:
    rows = trials(40)
    text = text_of(search_blocks(rows, SPACE))
    everything = importances(study_of(rows, SPACE, stopped=TrialState.COMPLETE))
    finished = importances(study_of(rows, SPACE))
    assert everything is not None
    assert finished is not None
    for name, share in everything.items():
        assert f"| {name} | {share:.3f} | {finished[name]:.3f} |" in text
    assert "40 trials by Optuna's TPE sampler: 21 trained to their end, 11 stopped" in text
    assert "8 failed" in text


def test_trials_cross_each_scale_where_their_setting_is() -> None:
    rows = trials(3)
    rows[0] |= {"best_validation_rmse": 0.9, "config.train.learning_rate": 0.01}
    rows[1] |= {"best_validation_rmse": 0.8, "config.train.learning_rate": 0.1}
    rows[2] |= {"best_validation_rmse": 1.0, "config.train.learning_rate": 0.001}
    for row, size in zip(rows, (16, 20, 32), strict=True):
        row["config.train.batch_size"] = size

    error, rate, batch, dims = coordinates(study_of(rows, SPACE))

    assert error.positions == pytest.approx((0.5, 0.0, 1.0))
    assert error.ticks == {0.0: "0.8000", 1.0: "1.0000"}
    assert rate.positions == pytest.approx((0.5, 1.0, 0.0))  # on a logarithmic scale
    assert rate.ticks == {0.0: "0.001", 1.0: "0.1"}
    assert batch.positions == pytest.approx((0.0, 0.25, 1.0))
    assert dims.positions == pytest.approx((0.0, 0.5, 1.0))
    assert dims.ticks == {0.0: "64, 32", 0.5: "none", 1.0: "128"}
    assert dims.name == "hidden_dims"


def test_the_best_trial_is_said_in_words() -> None:
    blocks = list(search_blocks(trials(10), SPACE))
    (plot,) = (b for b in blocks if isinstance(b, Plot) and b.name == "parallel_coordinates")
    best = min(
        (t for t in trials(10) if t["state"] != "failed"), key=lambda t: t["best_validation_rmse"]
    )
    assert "Parallel coordinates of 8 trials" in plot.description
    assert f"{best['best_validation_rmse']:.4f}" in plot.description
    dims = json.loads(best["config.model.hidden_dims"])
    assert f"model.hidden_dims = {', '.join(map(str, dims)) or 'none'}" in plot.description


def test_one_trial_alone_is_shown_without_coordinates() -> None:
    text = text_of(search_blocks(trials(1), SPACE))
    assert "plots/search_history.png" in text
    assert "parallel_coordinates" not in text


def test_failures_of_each_losss_search_are_told() -> None:
    rows = trials(10)
    best = min(t["best_validation_rmse"] for t in rows if t["state"] != "failed")
    text = text_of(losses_blocks({"mse": rows, "l1": rows[:3]}))
    assert f"| mse | 10 | 5 | 3 | 2 | {best:.4f} | reason 4 |" in text
    assert "| l1 | 3 | 2 | 1 | 0 |" in text


def test_with_another_metric_the_highest_r2_is_the_best() -> None:
    rows = [
        {k: v for k, v in row.items() if k != "best_validation_rmse"}
        | {"best_validation_r2": None if row["state"] == "failed" else 0.1 + row["trial"] / 100}
        for row in trials(20)
    ]
    settings = TuneConfig(metric="r2", sampler="gp", scheduler="none")

    blocks = tuple(search_blocks(rows, SPACE, settings))

    text = Report("A run", (), (), (ReportSection("Search", blocks),)).markdown("plots")
    assert "20 trials by Optuna's GP sampler" in text
    assert "compared by validation R2; no test row" in text
    # The 20th failed, as every fifth does.
    assert "a line for the best so far, which goes from 0.1100 to 0.2900" in text
    assert "with a validation R2 of 0.2900" in text
    scale = coordinates(study_of(rows, SPACE, metric=SEARCH_METRICS["r2"]), SEARCH_METRICS["r2"])[0]
    assert scale.positions[0] == 1.0
    assert scale.ticks == {0.0: "0.2900", 1.0: "0.1100"}
