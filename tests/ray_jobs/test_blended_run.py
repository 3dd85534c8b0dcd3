"""A run whose final model is a blend, on a real Ray; figures are recomputed from what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error

import ncf
from foundation.storage import Storage
from ncf.baselines import BaselineSpec, fit_baseline
from ncf.baselines.bayesian_factorization import BAYESIAN_FACTORIZATION
from ncf.baselines.boosting import BOOSTING, BoostingSettings
from ncf.blending import residual_boosting
from ncf.blending.stacking import StackedRows
from ncf.blending.weights import Weights
from ncf.data.dataset import PreparedDataset
from ncf.inference.recommender import Recommender
from ncf.training.out_of_fold import predict_fold
from ray_jobs.config import with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.report.document import Report
from ray_jobs.report.sections.model import model_section
from ray_jobs.results.metrics import RunMetrics
from ray_jobs.results.run import Workspace
from ray_jobs.stages import blending
from ray_jobs.stages.blending import MemberInputs, fit_member
from ray_jobs.stages.graph import Stages
from ray_jobs.training.workers import Workers
from tests.ray_jobs.small import job

pytestmark = pytest.mark.ray(seconds=40)

SETTINGS: dict[str, Any] = {
    "name": "blended",
    "model": {"embedding_dim": 4, "hidden_dims": [8]},
    "train": {"epochs": 3, "batch_size": 512},
    "tune": {"num_trials": 0},
    "blend": {"members": ["boosting", "bayesian-factorization", "residual-boosting"], "trials": 2},
}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A finished training."""
    config = job(tmp_path_factory.mktemp("storage"), **SETTINGS)
    workspace = Workspace(config)
    workspace.open()
    found = Stages(workspace, Workers(workspace.run / "workers", max_failures=0))
    _ = found.final_models
    return found


def served(stages: Stages) -> Recommender:
    return ncf.load(Path(str(stages.workspace.paths.checkpoint)))


def rows(prepared: PreparedDataset, split: str) -> tuple[np.ndarray, ...]:
    """Ids of users and movies, and stars, of the rows of a split."""
    table = prepared.table(split, ["user_id", "movie_index", "rating"]).to_pandas()
    movies = prepared.preprocessor.movies.ids[table["movie_index"]]
    return table["user_id"].to_numpy(), movies, table["rating"].to_numpy().astype(float)


def test_the_metrics_are_those_of_the_served_blend(stages: Stages) -> None:
    metrics = RunMetrics.read(stages.workspace.paths.metrics)
    users, movies, stars = rows(stages.final_data, "test")
    found = served(stages).predict(users, movies)
    assert metrics.test.rmse == pytest.approx(mean_squared_error(stars, found) ** 0.5, abs=1e-5)
    assert [each.name for each in metrics.members] == [
        "network",
        "boosting",
        "bayesian-factorization",
        "residual-boosting",
    ]
    assert not Path(str(stages.workspace.paths.ray("train"))).exists()


def test_coverage_is_that_of_the_served_intervals(stages: Stages) -> None:
    metrics = RunMetrics.read(stages.workspace.paths.metrics)
    assert metrics.uncertainty
    users, movies, stars = rows(stages.final_data, "test")
    for level in (0.5, 0.9):
        found = served(stages).predict_intervals(users, movies, level=level)
        covered = float(np.mean((found.low <= stars) & (stars <= found.high)))
        # Ends are on the scale's steps at its ends alone; rounding decides on at most a few rows.
        assert metrics.uncertainty.coverage[str(level)] == pytest.approx(covered, abs=0.01)
        assert covered == pytest.approx(level, abs=0.12)  # of 300 rows


def test_weights_are_fitted_to_what_never_saw_the_validation_rows(stages: Stages) -> None:
    """They follow from the checkpoint of the best epoch, and from members that are fitted to the
    training rows once more."""
    prepared = stages.prepared
    train, validation = prepared.rows("train"), prepared.rows("validation")
    assert train
    assert validation
    users, movies, stars = rows(prepared, "validation")
    known = [ncf.load(Path(str(stages.workspace.paths.best_checkpoint))).predict(users, movies)]
    low, high = prepared.preprocessor.rating_min, prepared.preprocessor.rating_max
    specs: tuple[BaselineSpec[Any], ...] = (BOOSTING, BAYESIAN_FACTORIZATION)
    for spec in specs:
        fitted = fit_baseline(spec, train, validation, prepared.preprocessor, 2)
        known.append(np.clip(fitted.baseline.predict(validation).numpy(), low, high))
    known.append(np.clip(residual_boosted(stages, known[0]), low, high))
    metrics = RunMetrics.read(stages.workspace.paths.metrics)
    for each, of_member in zip(metrics.members, known, strict=True):
        expected = mean_squared_error(stars, of_member) ** 0.5
        assert each.validation.rmse == pytest.approx(expected, abs=1e-5)
    blend = served(stages).checkpoint.blend
    assert blend
    of_all = np.stack(known).astype(float)
    assert blend.weights.of_members == pytest.approx(
        Weights.fit(of_all, stars).of_members, abs=1e-4
    )
    assert tuple(each.weight for each in metrics.members) == blend.weights.of_members
    guessed = np.clip(Weights.cross_fitted(of_all, stars), low, high)
    assert metrics.validation
    expected = mean_squared_error(stars, guessed) ** 0.5
    assert metrics.validation.rmse == pytest.approx(expected, abs=1e-5)


def residual_boosted(stages: Stages, network: np.ndarray) -> np.ndarray:
    """``[N]`` what trees on out-of-fold predictions make of the ``network``'s: ``[N]``."""
    prepared, metrics = stages.prepared, RunMetrics.read(stages.workspace.paths.metrics)
    train, validation = prepared.rows("train"), prepared.rows("validation")
    assert train
    assert validation
    experiment = with_parameters(
        stages.best_trial.experiment, {"train.epochs": 3, "train.stop_after": metrics.best_epoch}
    )
    fold = np.random.default_rng(experiment.train.seed).permutation(len(train)) % 5
    stars = np.zeros(len(train))
    for number in range(5):
        stars[fold == number] = predict_fold(experiment, prepared.preprocessor, train, number)
    default = BoostingSettings(with_times=False)
    rows = StackedRows(train, stars), StackedRows(validation, network.astype(float))
    settings = residual_boosting.tune(*rows, prepared.preprocessor, default, 2)
    member = residual_boosting.fit(rows[0], prepared.preprocessor, settings)
    found: np.ndarray = member.predict_from(torch.from_numpy(network), validation).numpy()
    return found


def test_a_member_that_was_fitted_is_not_fitted_again(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = MemberInputs("boosting", stages.prepared, stages.final_data, 1)
    folder = Storage.at(tmp_path)
    fit_member(inputs, folder)
    monkeypatch.setattr(blending, "fit_baseline", None)
    fit_member(inputs, folder)
    assert (folder / "boosting" / "trees.txt").exists()


def test_a_member_without_its_package_is_refused(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ncf.baselines.find_spec", lambda _name: None)
    inputs = MemberInputs("boosting", stages.prepared, stages.final_data, 1)
    with pytest.raises(TrainingError, match=r"cannot have boosting: .*pip install lightgbm"):
        fit_member(inputs, Storage.at(tmp_path))


def test_the_report_shows_members_and_intervals(stages: Stages) -> None:
    model = stages.final_model
    section = model_section(model, stages.best_trial, stages.workspace.config)
    text = Report("A run", (), (), (section,)).markdown("plots")
    for member in model.metrics.members:
        errors = f"{member.validation.rmse:.4f} | {member.test.rmse:.4f}"
        assert f"| {member.name} | {member.weight:.3f} | {errors} |" in text
    scores = model.metrics.uncertainty
    assert scores
    assert f"| 90% | {scores.coverage['0.9']:.1%} | {scores.width['0.9']:.2f} |" in text
    assert f"{scores.nll:.4f} with the predicted standard deviations" in text
