"""Fixed configurations compared on a real Ray, and figures recomputed from what is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import nnls

from foundation.errors import ConfigError
from foundation.storage import Storage
from ingest.errors import DatasetError
from ncf.baselines.boosting import BoostingSettings
from ncf.blending import residual_boosting
from ncf.blending.stacking import StackedRows
from ncf.data.dataset import PreparedDataset
from ncf.training.out_of_fold import in_order, predict_fold
from ray_jobs.config import JobConfig, with_parameters
from ray_jobs.configurations import with_configurations
from ray_jobs.report.comparison import write_comparison_report
from ray_jobs.results.comparison import Comparison, ModelResult, shown_budget
from ray_jobs.results.original_ids import OriginalIds
from ray_jobs.results.run import Workspace
from ray_jobs.results.split_files import SPLITS, refuse_existing
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.stages.compared_predictions import ComparedPredictions, given_models
from ray_jobs.stages.exported_splits import export_splits
from ray_jobs.stages.graph import Stages
from ray_jobs.stages.preparation import preprocess
from ray_jobs.training.workers import Workers
from tests.ray_jobs.small import DATA, job
from tests.support import Done, run_module

pytestmark = pytest.mark.ray(seconds=40)

NAMES = ("plain", "year alone", "fading")
CONFIGURATIONS = {
    "plain": {},
    "year alone": {"features": {"numeric": ["year"]}},
    "fading": {"time_decay": {"rate_per_day": 0.01}},
    "forecasts": {"model": {"history": {"encoders": ["statistics"], "causal": True}}},
}
SETTINGS: dict[str, Any] = {
    "model": {"embedding_dim": 4, "hidden_dims": [8]},
    "train": {"epochs": 3, "batch_size": 512},
    "tune": {"num_trials": 0},
}
COMPARE: dict[str, Any] = {
    "seeds": [0, 1],
    "refit_on_validation": True,
    "ensembles": True,
    "baselines": ["damped-bias"],
    "against": ["damped bias"],
    "resamples": 100,
}


def stages(storage: Path, *names: str, run: str = "fixed", **compare: Any) -> Stages:
    """The stages of the comparison of these configurations, or of losses if there are none.

    A model that an earlier test has trained in the same ``run`` is not trained again.
    """
    values = job(storage, name=run, **SETTINGS, compare=COMPARE | compare).model_dump()
    values["compare"]["configurations"] = {name: CONFIGURATIONS[name] for name in names}
    config = JobConfig.model_validate(with_configurations(values, "a test"))
    workspace = Workspace(config)
    workspace.open()
    return stages_without_workers(workspace)


def stages_without_workers(workspace: Workspace) -> Stages:
    return Stages(workspace, Workers(workspace.run / "workers", max_failures=0))


def named(comparison: Comparison, name: str) -> ModelResult:
    (entry,) = (entry for entry in comparison.entries if entry.name == name)
    return entry


def predictions(found: Stages, entry: ModelResult) -> np.ndarray:
    """``[S, N]`` stars, in double precision as the scores are summed."""
    folder = found.workspace.paths.predictions
    tables = [(folder / name).read_table() for name in entry.predictions]
    return np.stack([table["stars"].to_numpy() for table in tables]).astype(np.float64)


def test_configurations_are_compared_with_data_of_their_own(storage: Path) -> None:
    """Each figure is recomputed with NumPy from the stored predictions and the test rows."""
    of_all = stages(storage, *NAMES)

    found = of_all.comparison

    ensembles = tuple(f"{name}, mean of 2 seeds" for name in NAMES)
    assert [e.name for e in found.entries] == ["global mean", "damped bias", *NAMES, *ensembles]
    assert (found.fixed, found.scale, found.scored, found.refitted) == (True, "stars", "test", True)
    test = of_all.prepared.table("test", ["rating"])["rating"].to_numpy()
    for name in NAMES:
        entry, ensemble = named(found, name), named(found, f"{name}, mean of 2 seeds")
        stars = predictions(of_all, entry)
        rmse = np.sqrt(((stars - test) ** 2).mean(axis=1))
        mae = np.abs(stars - test).mean(axis=1)
        for metric, values in (("rmse", rmse), ("mae", mae)):
            expected = (values.mean(), values.std(ddof=1))
            assert found.figure(entry, metric) == pytest.approx(expected, abs=1e-6)
        together = stars.mean(axis=0)
        np.testing.assert_allclose(predictions(of_all, ensemble)[0], together, rtol=1e-6)
        assert found.figure(ensemble, "rmse") == pytest.approx(
            (np.sqrt(np.mean((together - test) ** 2)), None)
        )
        assert len(entry.validation) == 2
    assert_weights_are_those_of_the_comparison(of_all, found)
    assert_all_others_are_compared_with_the_reference(found)
    assert_the_report_names_them(of_all, found)
    # Two data sets each: with and without validation rows among the training rows.
    assert len(list((storage / "prepared").iterdir())) == 6


def test_blends_are_weighted_on_the_validation_rows(storage: Path) -> None:
    """Recomputed with NumPy and SciPy from the members' stored predictions."""
    members = ("plain", "damped bias", "LightGBM", "corrected")
    of_all = stages(
        storage,
        "plain",
        run="blended",
        baselines=["damped-bias", "boosting"],
        blends={"all of them": list(members)},
        residual_boosting={"corrected": "plain"},
    )

    found = of_all.comparison

    blend, single = named(found, "all of them"), [named(found, name) for name in members]
    written = [file for entry in found.entries for file in entry.files]
    assert len(set(written)) == len(written)
    assert (blend.kind, found.entries[-1]) == ("blend", blend)
    known = of_all.prepared.table("validation", ["rating"])["rating"].to_numpy().astype(float)
    test = of_all.prepared.table("test", ["rating"])["rating"].to_numpy().astype(float)
    folder = of_all.workspace.paths.predictions
    low, high = known.min(), known.max()
    weights = []
    for seed in (0, 1):
        files = [each.validation_predictions for each in single]
        stars = np.stack(
            [
                (folder / of[min(seed, len(of) - 1)]).read_table()["stars"].to_numpy().astype(float)
                for of in files
            ]
        )
        mean = known.mean()
        weights.append(nnls(stars.T - mean, known - mean)[0])
        on_test = [predictions(of_all, each) for each in single]
        of_seed = np.stack([each[min(seed, len(each) - 1)] for each in on_test])
        expected = np.clip(mean + weights[-1] @ (of_seed - mean), low, high)
        np.testing.assert_allclose(predictions(of_all, blend)[seed], expected, rtol=1e-5)
        rmse = float(np.sqrt(np.mean((expected - test) ** 2)))
        assert blend.test[seed]["rmse"] == pytest.approx(rmse, abs=1e-6)
        # Each validation row is predicted with weights of other rows, so a little worse.
        fitted = np.clip(mean + weights[-1] @ (stars - mean), low, high)
        least = float(np.sqrt(np.mean((fitted - known) ** 2)))
        assert least < blend.validation[seed]["rmse"] < least + 0.05
    shares = zip(np.mean(weights, axis=0), members, strict=True)
    assert blend.detail == "; ".join(f"{weight:.3f} x {name}" for weight, name in shares)
    assert_trees_correct_the_model(of_all, single[0], single[-1])
    references = {(d.first, d.second) for d in found.assessment.differences}
    assert ("all of them", "damped bias") in references


def assert_trees_correct_the_model(of_all: Stages, model: ModelResult, found: ModelResult) -> None:
    """Of the second seed: trees that are fitted once more, to out-of-fold predictions."""
    selection = of_all.prepared
    final = PreparedDataset.open(selection.filesystem, refitted_data(of_all))
    folder, config = of_all.workspace.paths.predictions, of_all.workspace.config
    experiment = with_parameters(
        config.compare.configurations["plain"].experiment,
        {"train.seed": 1, "train.stop_after": model.best_epochs[1]},
    )

    def out_of_fold(data: PreparedDataset) -> StackedRows:
        rows = data.rows("train")
        assert rows
        of_folds = [predict_fold(experiment, data.preprocessor, rows, k) for k in range(5)]
        return StackedRows(rows, in_order(of_folds, 1))

    def network(data: PreparedDataset, split: str, files: tuple[str, ...]) -> StackedRows:
        rows = data.rows(split)
        assert rows
        return StackedRows(rows, (folder / files[1]).read_table()["stars"].to_numpy().astype(float))

    validation = network(selection, "validation", model.validation_predictions)
    default = BoostingSettings(with_times=False)
    arguments = out_of_fold(selection), validation, selection.preprocessor, default
    settings = residual_boosting.tune(*arguments, config.compare.trials_per_baseline)
    member = residual_boosting.fit(out_of_fold(final), final.preprocessor, settings)
    test = network(final, "test", model.predictions)
    stars = member.predict_from(torch.from_numpy(test.network), test.rows).numpy()
    low, high = final.preprocessor.rating_min, final.preprocessor.rating_max
    np.testing.assert_allclose(predictions(of_all, found)[1], np.clip(stars, low, high), rtol=1e-5)
    assert found.detail.endswith("on the network's residuals (of the first seed)")
    assert not Path(str(of_all.workspace.paths.ray("compare") / "out-of-fold")).exists()


def test_settings_that_were_tried_are_counted(storage: Path) -> None:
    """Of a blend, each search once."""
    found = stages(
        storage,
        "plain",
        run="blended",
        baselines=["damped-bias", "boosting"],
        blends={"all of them": ["plain", "damped bias", "LightGBM", "corrected"]},
        residual_boosting={"corrected": "plain"},
    ).comparison
    assert {entry.name: entry.tried for entry in found.entries} == {
        "global mean": 0,
        "damped bias": 36,
        "LightGBM": 2,
        "plain": 0,
        "plain, mean of 2 seeds": 0,
        "corrected": 2,
        "all of them": 36 + 2 + 2,
    }
    assert shown_budget(named(found, "damped bias")) == "36"
    assert shown_budget(named(found, "plain")) == "fixed"


@pytest.mark.parametrize(("name", "other"), [("plain!", "plain"), ("damped: bias", "damped bias")])
def test_what_is_corrected_has_files_of_its_own(storage: Path, name: str, other: str) -> None:
    with pytest.raises(ConfigError, match=f"'{other}' and '{name}' would have files of the same"):
        _ = stages(storage, "plain", run="wrong", residual_boosting={name: "plain"}).comparison


def test_a_network_that_forecasts_is_not_corrected(storage: Path) -> None:
    of_all = stages(storage, "forecasts", run="wrong", residual_boosting={"c": "forecasts"})
    with pytest.raises(ConfigError, match=r"residual_boosting.c: residual boosting learns the err"):
        _ = of_all.comparison


def test_without_lightgbm_nothing_is_corrected(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ncf.baselines.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"residual_boosting: .*pip install lightgbm"):
        _ = stages(storage, "plain", run="wrong", residual_boosting={"c": "plain"}).comparison


def test_decayed_errors_of_what_is_corrected_are_those_of_the_comparison(storage: Path) -> None:
    of_all = stages(
        storage, "plain", "fading", run="decayed", residual_boosting={"corrected": "fading"}
    )
    entry = named(of_all.comparison, "corrected")
    final = PreparedDataset.open(of_all.prepared.filesystem, refitted_data(of_all)).table(
        "test", ["rating", "weight"]
    )
    errors = (predictions(of_all, entry) - final["rating"].to_numpy()) * final["weight"].to_numpy()
    expected = np.sqrt((errors**2).mean(axis=1)).mean()
    assert of_all.comparison.figure(entry, "rmse", "decayed")[0] == pytest.approx(
        expected, rel=1e-5
    )


def test_what_is_corrected_is_a_model_of_the_comparison(storage: Path) -> None:
    with pytest.raises(ConfigError, match="names 'damped bias', expected a model of this compari"):
        _ = stages(storage, "plain", run="wrong", residual_boosting={"c": "damped bias"}).comparison


@pytest.mark.parametrize(
    ("blends", "told"),
    [
        ({"b": ["plain", "item kNN"]}, r"blends.b names 'item kNN', expected .*damped bias; plain"),
        ({"plain": ["plain", "damped bias"]}, "2 models of the comparison have the name 'plain'"),
        (
            {"a b": ["plain", "damped bias"], "a-b": ["plain", "damped bias"]},
            "'blend a b' and 'blend a-b' would have files of the same name",
        ),
    ],
)
def test_blends_of_what_is_not_compared_are_refused(
    storage: Path, blends: dict[str, list[str]], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        _ = stages(storage, "plain", run="wrong", blends=blends).comparison


def exported(of_all: Stages, folder: Path) -> pd.DataFrame:
    """The test rows, as another program gets them."""
    export_splits(of_all, folder)
    return pd.read_csv(folder / "test.csv")


def test_given_predictions_are_scored_as_they_are(storage: Path, tmp_path: Path) -> None:
    of_all = stages(storage, *NAMES)
    test = exported(of_all, tmp_path / "splits")
    (baseline,) = predictions(of_all, named(of_all.comparison, "damped bias"))
    copied = test.assign(prediction=baseline)[["userId", "movieId", "prediction"]]
    copied.sample(frac=1, random_state=0).to_csv(tmp_path / "copy.csv", index=False)
    # As another program may write ids, with rows of its own, and off the scale.
    constant = test.assign(prediction=9.0)[["movieId", "prediction", "userId"]].astype(float)
    more = pd.DataFrame({"movieId": [-1.0], "prediction": [1.0], "userId": [-1.0]})
    pd.concat([more, constant]).to_parquet(tmp_path / "most.parquet")
    found = stages(
        storage,
        *NAMES,
        predictions={"copy": str(tmp_path / "copy.csv"), "most": str(tmp_path / "most.parquet")},
        against=(),
        differences=[("copy", "damped bias"), ("most", "damped bias"), ("copy", "plain")],
    )
    comparison = found.comparison
    copy, most = named(comparison, "copy"), named(comparison, "most")
    assert [copy.kind, shown_budget(copy), copy.detail] == [
        "given",
        "given",
        "predictions in copy.csv",
    ]
    reference = named(comparison, "damped bias")
    for metric in ("rmse", "mae", "r2"):
        (value, _), (expected, _) = (comparison.figure(e, metric) for e in (copy, reference))
        assert value == pytest.approx(expected, abs=1e-7)
    errors = np.float64(5) - test["rating"].to_numpy()
    assert comparison.figure(most, "rmse")[0] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert comparison.figure(most, "mae")[0] == pytest.approx(np.abs(errors).mean())
    same, worse, _ = [d for d in comparison.assessment.differences if d.metric == "rmse"]
    ends = [same.value, same.corrected_low, same.corrected_high]
    assert ends == pytest.approx([0, 0, 0], abs=1e-7)
    assert worse.corrected_low > 0
    assert worse.value == pytest.approx(
        comparison.figure(most, "rmse")[0] - comparison.figure(reference, "rmse")[0], abs=1e-6
    )
    # They are no models of this comparison.
    assert comparison.model in NAMES
    assert comparison.baseline in ("damped bias", "global mean")
    before = found.workspace.paths.comparison.read_bytes()
    constant.assign(prediction=1.0).to_parquet(tmp_path / "most.parquet")
    again = stages(
        storage,
        *NAMES,
        predictions={"copy": str(tmp_path / "copy.csv"), "most": str(tmp_path / "most.parquet")},
    )
    assert named(again.comparison, "most").test != most.test
    assert again.workspace.paths.comparison.read_bytes() != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.drop(index=[0, 5]),
            "2 of .* test rows have no prediction, such as user",
        ),
        (lambda rows: pd.concat([rows, rows[:1]]), "a second time. Expected one prediction"),
        (lambda rows: rows.replace({"prediction": {3.0: np.nan}}), "is '', expected a number"),
        (lambda rows: rows.replace({"prediction": {3.0: np.inf}}), "is 'inf', expected a number"),
        (lambda rows: rows.rename(columns={"prediction": "stars"}), "expected the columns userId"),
        (lambda rows: rows.assign(userId="u" + rows.userId.astype(str)), "rows have no prediction"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str, storage: Path, tmp_path: Path
) -> None:
    of_all = stages(storage, *NAMES)
    test = exported(of_all, tmp_path / "splits")
    rows = test.assign(prediction=3.0)[["userId", "movieId", "prediction"]]
    file = tmp_path / "given.csv"
    change(rows).to_csv(file, index=False)
    data = ComparedData(of_all.prepared, of_all.scored_data)
    ids = OriginalIds.of(of_all.raw.folder)
    compared = ComparedPredictions(data, ids, Storage.at(tmp_path / "predictions"))
    with pytest.raises(DatasetError, match=message) as refused:
        list(compared.results(given_models({"mine": str(file)})))
    assert str(file) in str(refused.value)


def test_the_rows_of_each_split_are_exported_with_the_ids_of_the_data(
    storage: Path, tmp_path: Path
) -> None:
    of_all = stages(storage, *NAMES)
    exported(of_all, tmp_path / "splits")
    raw = pd.read_parquet(of_all.raw.folder.path + "/ratings.parquet")
    expected = {
        tuple(row) for row in raw[["user_id", "movie_id", "rating", "timestamp"]].to_numpy()
    }
    found = [pd.read_csv(tmp_path / "splits" / f"{split}.csv") for split in SPLITS]
    rows = [tuple(row) for each in found for row in each.to_numpy()]
    assert len(rows) == len(expected)
    assert set(rows) == expected
    counts = of_all.prepared.manifest.counts
    assert [len(each) for each in found] == [counts[split] for split in SPLITS]
    with pytest.raises(ConfigError, match="exists and is not empty; name a new folder"):
        refuse_existing(tmp_path / "splits")
    names = OriginalIds({1: "ann", 2: "bob"}, None)
    assert names.of_users(np.array([2, 1])).tolist() == ["bob", "ann"]
    assert names.of_movies(np.array([7])).tolist() == ["7"]


def assert_weights_are_those_of_the_comparison(of_all: Stages, found: Comparison) -> None:
    """Also for the model that learned with other weights."""
    entry = named(found, "fading")
    final = PreparedDataset.open(of_all.prepared.filesystem, refitted_data(of_all)).table(
        "test", ["rating", "weight"]
    )
    target = final["rating"].to_numpy() * final["weight"].to_numpy()
    decayed = predictions(of_all, entry) * final["weight"].to_numpy()
    rmse = np.sqrt(((decayed - target) ** 2).mean(axis=1))
    assert found.figure(entry, "rmse", "decayed")[0] == pytest.approx(rmse.mean(), rel=1e-5)


def refitted_data(found: Stages) -> str:
    """Folder of the comparison's own data without validation rows."""
    workspace = Workspace(found.workspace.config)
    return preprocess(workspace, found.raw, train_on_validation=True).folder


def assert_all_others_are_compared_with_the_reference(found: Comparison) -> None:
    differences = found.assessment.differences
    others = [entry.name for entry in found.entries if entry.name != "damped bias"]
    assert [d.first for d in differences if d.metric == "rmse"] == others
    assert {d.second for d in differences} == {"damped bias"}
    by_name = {entry.name: entry for entry in found.entries}
    for difference in differences:
        first, second = (
            found.figure(by_name[name], difference.metric)[0]
            for name in (difference.first, difference.second)
        )
        assert difference.value == pytest.approx(first - second, rel=1e-4, abs=1e-6)
    single = ["global mean", "damped bias", *NAMES]
    assert all([e.model for e in part.errors] == single for part in found.assessment.slices)
    assert len(found.assessment.calibrations) == len(found.entries)


def assert_the_report_names_them(of_all: Stages, found: Comparison) -> None:
    write_comparison_report(of_all)

    text = of_all.workspace.paths.comparison_markdown.read_bytes().decode()
    assert "SYNTHETIC" in text
    for entry in found.entries:
        name = entry.name if entry.kind == "baseline" else f"**{entry.name}**"
        figures = [found.figure(entry, metric) for metric in ("rmse", "mae")]
        cells = [f"{v:.4f}" + (f" ± {s:.4f}" if s is not None else "") for v, s in figures]
        assert (
            f"| {name} | {shown_budget(entry)} | {len(entry.test)} | {' | '.join(cells)} |" in text
        )
    assert "All others are compared with damped bias." in text
    assert "**Test RMSE by: training ratings of the user**" in text
    header = "| rows | RMSE, global mean | RMSE, damped bias | RMSE, plain | RMSE, year alone |"
    assert f"| training ratings of the user {header}" in text
    for difference in found.assessment.differences:
        assert f"{difference.corrected_low:+.4f} to {difference.corrected_high:+.4f}" in text
    page = of_all.workspace.paths.comparison_html.read_bytes().decode()
    assert "Validation errors, of models trained on the training rows alone" in page


def test_a_fixed_configuration_and_its_loss_give_the_same_figures(storage: Path) -> None:
    of_loss = stages(storage, run="loss", losses=["mse"]).comparison
    of_configuration = stages(storage, *NAMES).comparison

    loss, configuration = named(of_loss, "NCF, mse"), named(of_configuration, "plain")
    assert loss.test == configuration.test
    assert loss.validation == configuration.validation
    curves = (
        [[epoch | {"seconds": 0} for epoch in run] for run in entry.curves]
        for entry in (loss, configuration)
    )
    assert next(curves) == next(curves)
    assert not of_loss.fixed
    assert len(of_loss.assessment.slices[0].errors) == 2


def test_choosing_settings_reads_no_test_row(storage: Path) -> None:
    scored = stages(storage, "plain", "year alone")
    with_test = scored.comparison
    own = [Path(folder) for folder in (storage / "prepared").iterdir()]
    for folder in own:
        (folder / "ratings" / "split=test").rename(folder / "aside")
    try:
        choosing = stages(storage, "plain", "year alone", score_test=False, against=[])
        found = choosing.comparison
        write_comparison_report(choosing)
    finally:
        for folder in own:
            (folder / "aside").rename(folder / "ratings" / "split=test")

    assert [e.name for e in found.entries] == ["global mean", "damped bias", "plain", "year alone"]
    assert (found.scored, found.num_test, found.refitted) == ("validation", 0, False)
    assert all(not entry.test and not entry.predictions for entry in found.entries)
    for name in ("plain", "year alone"):
        # The same models, before they are trained again.
        assert named(found, name).validation == named(with_test, name).validation
        rmse = [figures["rmse"] for figures in named(found, name).validation]
        assert found.figure(named(found, name), "rmse") == pytest.approx(
            (np.mean(rmse), np.std(rmse, ddof=1))
        )
    # Nothing of the errors on test rows is left in the comparison of this run.
    assert choosing.workspace.paths.predictions.list_files() == []
    text = choosing.workspace.paths.comparison_markdown.read_bytes().decode()
    assert "No test row was read" in text
    assert "Validation errors in stars" in text
    assert "Test errors" not in text


def written(found: Stages, *names: str) -> dict[str, int]:
    """When the predictions of models were written, in nanoseconds."""
    folder = Path(found.workspace.paths.predictions.path)
    return {n: (folder / f"{n}-seed-0.parquet").stat().st_mtime_ns for n in names}


def test_only_what_is_missing_is_trained(storage: Path) -> None:
    settings: dict[str, Any] = {"run": "missing", "refit_on_validation": False, "against": []}
    one = stages(storage, "plain", **settings)
    first = one.comparison
    before = written(one, "plain")
    stamp = Path(one.workspace.paths.comparison.path).stat().st_mtime_ns

    again = stages(storage, "plain", **settings).comparison

    assert again == first
    assert Path(one.workspace.paths.comparison.path).stat().st_mtime_ns == stamp
    more = stages(storage, "plain", "fading", **settings | {"against": ["plain"]})
    second = more.comparison
    assert written(more, "plain") == before
    assert named(second, "plain") == named(first, "plain")
    assert {d.second for d in second.assessment.differences} == {"plain"}
    # Of a model that is compared no longer, nothing is left.
    only = stages(storage, "fading", **settings).comparison
    assert not (Path(one.workspace.paths.predictions.path) / "plain-seed-0.parquet").exists()
    assert named(only, "fading") == named(second, "fading")


def test_names_that_are_taken_or_unknown_are_refused(storage: Path) -> None:
    taken = Workspace(job(storage, compare={"configurations": {"damped bias": {}}}))
    with pytest.raises(ConfigError, match=r"2 models .* have the name 'damped bias': rename"):
        _ = stages_without_workers(taken).comparison
    with pytest.raises(ConfigError, match=r"against names 'bias', expected .*: global mean; damp"):
        _ = stages(storage, "plain", against=["bias"]).comparison


def test_a_protocol_is_compared_by_its_command(
    tmp_path: Path, run_joined: Callable[..., Done]
) -> None:
    """Files that extend others, as a user runs them, and the report that the command leaves."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small.toml").write_text(
        """
        [model]
        embedding_dim = 4
        hidden_dims = [8]
        [train]
        epochs = 2
        """
    )
    protocol = tmp_path / "protocol.toml"
    protocol.write_text(
        """
        name = "protocol"
        task = "rating"
        [compare]
        seeds = [0]
        baselines = []
        resamples = 100
        [compare.configurations]
        "small" = { extends = "models/small.toml" }
        "small, with biases" = { extends = "models/small.toml", model.biases = ["user", "movie"] }
        """
    )
    data = DATA.model_dump(mode="json")["synthetic"]
    settings = ["data.source=synthetic", "tmdb.enabled=false", f"storage={tmp_path / 'out'}"]
    settings += ["scaling.num_workers=0"]
    settings += [f"data.synthetic.{key}={value}" for key, value in data.items()]

    done = run_joined("ray_jobs.compare", settings, "--config", str(protocol))

    assert done.code == 0, done.out + done.err
    run = tmp_path / "out" / "runs" / "protocol"
    found = (Storage.at(run) / "comparison.json").read_as(Comparison, "compare again")
    assert [e.name for e in found.entries] == ["global mean", "small", "small, with biases"]
    # Without references, models are compared with the best baseline and with each other.
    assert [(d.first, d.second) for d in found.assessment.differences if d.metric == "mae"] == [
        ("small", "global mean"),
        ("small, with biases", "global mean"),
        ("small", "small, with biases"),
    ]
    # No search was made, although tune.num_trials has its default.
    assert "tune" not in done.out
    text = (run / "comparison.md").read_text()
    value, _ = found.figure(found.entries[2], "rmse")
    assert f"| **small, with biases** | fixed | 1 | {value:.4f} |" in text
    assert "Each model has a fixed configuration" in text
    assert (run / "plots" / "comparison.png").is_file()
    refused = run_module("ray_jobs.pipeline", [*settings, "compare.score_test=false"])
    assert refused.code == 2
    assert "the report is on the final model's errors there" in refused.err
