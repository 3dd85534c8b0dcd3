"""Training and search on a real local Ray, in this process."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import struct
import subprocess
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml
from mlflow.entities import Run
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from prometheus_client.parser import text_string_to_metric_families
from tensorboardX.proto.event_pb2 import Event

from ncf.data.dataset import PreparedDataset
from ncf.data.splits import SPLITS
from ncf.inference import checkpoint
from ncf.inference.ordering import Ordering
from ray_jobs.cluster.resources import GroupPlan
from ray_jobs.config import with_parameters
from ray_jobs.errors import ResourceError, TrainingError
from ray_jobs.report.document import Report, ReportSection
from ray_jobs.report.sections.search import search_blocks
from ray_jobs.results.final_model import rated_movies
from ray_jobs.results.metrics import RunMetrics
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import fingerprint, key_of
from ray_jobs.stages import recommendation
from ray_jobs.stages.compared_models import ComparedData
from ray_jobs.stages.comparison import compare
from ray_jobs.stages.graph import workers_of
from ray_jobs.stages.preparation import ingest, preprocess
from ray_jobs.stages.training import FinalModel, train
from ray_jobs.stages.tuning import BestTrial, open_records, search
from ray_jobs.training.run_tasks import run_tasks, train_beside
from ray_jobs.training.tasks import CallResult, CallTask, TrainingTask
from ray_jobs.training.telemetry import METRIC
from ray_jobs.training.workers import Workers
from tests.ncf.prepared import write_prepared
from tests.ray_jobs.made import CLOSED, FITTED, METRICS, ROWS, kept
from tests.ray_jobs.made import recommender as made_recommender
from tests.ray_jobs.nodes import free_ports
from tests.ray_jobs.small import IMPOSSIBLE, job, validation_rmse
from tests.ray_jobs.tracking_server import runs_of, tracking_server
from tests.support import ROOT

pytestmark = pytest.mark.ray(seconds=130)

GRAFANA = ROOT / "deploy" / "grafana"
PANELS = json.loads((GRAFANA / "dashboards" / "movie-ratings.json").read_text())["panels"]
PROMETHEUS = shutil.which("prometheus")


def test_more_workers_than_fit_are_refused_at_once(storage: Path) -> None:
    with pytest.raises(ResourceError, match=r"3 workers of 1 CPU and 0\.5 GiB .* room for 2"):
        GroupPlan.of(job(storage, scaling={"num_workers": 3}))
    with pytest.raises(ResourceError, match=r"1 CPU and 1 GPU and 0\.5 GiB of memory each"):
        GroupPlan.of(job(storage, scaling={"num_workers": 1, "use_gpu": True}))
    with pytest.raises(ResourceError, match=r"1 workers of 1 CPU and 1e\+06 GiB .* room for 0"):
        GroupPlan.of(job(storage, scaling={"num_workers": 1, "memory_per_worker": 1e6}))
    assert GroupPlan.of(
        job(storage, scaling={"num_workers": 1, "memory_per_worker": 0})
    ).preferred.per_worker == {"CPU": 1}


def test_trials_run_at_once_are_as_many_as_their_workers_fit(storage: Path) -> None:
    for scaling, expected in (
        ({"num_workers": 1}, 2),
        ({"num_workers": 2}, 1),
        ({"num_workers": 1, "cpus_per_worker": 2}, 1),
    ):
        assert len(GroupPlan.of(job(storage, scaling=scaling)).fitting()) == expected


def test_when_every_trial_fails_the_first_reason_is_told(
    storage: Path, prepared: PreparedDataset, workers: Workers
) -> None:
    space = {"model.embedding_dim": {"choices": [IMPOSSIBLE]}}
    workspace = Workspace(job(storage, name="never", tune={"num_trials": 1, "space": space}))

    with pytest.raises(TrainingError, match=r"all 1 trials failed, the first with: .*allocate"):
        search(workspace, prepared, workers)

    assert not (storage / "runs" / "never" / "best_config.json").exists()


def test_the_original_mode_is_compared_on_its_own_scale(storage: Path, workers: Workers) -> None:
    """Without validation rows, the last epoch is scored, on rating * weight."""
    config = job(
        storage,
        name="original",
        split={"validation": 0.0},
        time_decay={"apply_to": "target", "rate_per_day": 0.001},
        train={"epochs": 2, "patience": 0},
        tune={"num_trials": 0},
        compare={"losses": ["l1"], "seeds": [0, 1]},
    )
    workspace = Workspace(config)
    raw = ingest(workspace)
    prepared = preprocess(workspace, raw)

    chosen = search(workspace, prepared, workers)
    comparison = compare(workspace, raw, ComparedData(prepared, prepared), chosen, workers)

    assert comparison.scale == "decayed"
    model = comparison.entries[-1]
    assert (model.name, model.best_epochs, model.validation) == ("NCF, l1", (2, 2), ())
    test = prepared.table("test", ["rating", "weight"]).to_pandas()
    target = test["rating"] * test["weight"]
    mean = prepared.table("train", ["rating"])["rating"].to_numpy().mean()
    by_hand = np.sqrt(np.mean((mean * test["weight"] - target) ** 2))
    assert comparison.entries[0].figure("rmse", "decayed")[0] == pytest.approx(by_hand, rel=1e-5)
    of_seeds = [of_seed["decayed"]["rmse"] for of_seed in model.test]
    assert len(of_seeds) == 2
    value, spread = model.figure("rmse", "decayed")
    assert value == pytest.approx(np.mean(of_seeds))
    assert spread == pytest.approx(np.std(of_seeds, ddof=1))


def test_each_loss_has_a_search_of_its_own_if_asked_for(
    storage: Path, prepared: PreparedDataset, workers: Workers
) -> None:
    config = job(
        storage,
        name="fair",
        train={"epochs": 2, "batch_size": 512},
        tune={"num_trials": 0, "space": {"model.embedding_dim": {"choices": [3, 5]}}},
        compare={"losses": ["l1", "mse"], "seeds": [0], "trials_per_loss": 1, "resamples": 100},
    )
    workspace = Workspace(config)

    comparison = compare(
        workspace,
        ingest(workspace),
        ComparedData(prepared, prepared),
        search(workspace, prepared, workers),
        workers,
    )

    assert comparison.trials_per_loss == 1
    for loss in ("l1", "mse"):
        trials = pq.read_table(storage / "runs" / "fair" / "searches" / loss / "trials.parquet")
        assert trials.num_rows == 1
        assert "config.train.loss" not in trials.column_names
        best = tomllib.loads(
            (storage / "runs" / "fair" / "searches" / loss / "best_config.toml").read_text()
        )
        assert best["train"]["loss"] == loss
        (entry,) = (e for e in comparison.entries if e.name == f"NCF, {loss}")
        # The same configuration, seed and rows: the comparison trains the trial's model again.
        assert entry.validation[0]["rmse"] == pytest.approx(
            trials["best_validation_rmse"][0].as_py(), rel=1e-5
        )


def test_models_and_baselines_are_trained_again_on_the_validation_rows(
    storage: Path, workers: Workers
) -> None:
    config = job(
        storage,
        name="again",
        train={"epochs": 3, "batch_size": 512},
        tune={"num_trials": 0},
        compare={
            "losses": ["mse"],
            "seeds": [0, 1],
            "refit_on_validation": True,
            "ensembles": True,
            "baselines": ["damped-bias"],
            "resamples": 100,
        },
    )
    workspace = Workspace(config)
    raw = ingest(workspace)
    prepared = preprocess(workspace, raw)
    chosen = search(workspace, prepared, workers)

    final_data = preprocess(workspace, raw, workers, train_on_validation=True)
    data = ComparedData(prepared, final_data)
    comparison = compare(workspace, raw, data, chosen, workers)

    names = ["global mean", "damped bias", "NCF, mse", "NCF, mse, mean of 2 seeds"]
    assert [entry.name for entry in comparison.entries] == names
    mean, _, model, ensemble = comparison.entries
    splits = ("train", "validation")
    both = np.concatenate([prepared.table(s, ["rating"])["rating"] for s in splits])
    test = prepared.table("test", ["row", "rating"]).to_pandas()
    assert mean.test[0]["mae"] == pytest.approx(np.abs(test["rating"] - both.mean()).mean())
    # The stage that keeps one model trains it in the same way.
    with scraping() as scraper:
        trained = train(workspace, raw, prepared, final_data, chosen, workers).metrics
        epochs = {"train": len(trained.epochs), "refit": trained.best_epoch}
        expected: Exported = {
            ("epochs_total", frozenset(("again", name))): n for name, n in epochs.items()
        }
        scraper.assert_soon(expected)
    assert model.best_epochs[0] == trained.best_epoch
    assert model.test[0]["rmse"] == pytest.approx(trained.test.rmse, rel=1e-6)
    assert trained.validation
    assert model.validation[0]["rmse"] == pytest.approx(trained.validation.rmse, rel=1e-6)
    folder = storage / "runs" / "again" / "predictions"
    first, second, together = (
        pq.read_table(folder / name).to_pandas().set_index("row").loc[test["row"], "stars"]
        for name in (*model.predictions, *ensemble.predictions)
    )
    np.testing.assert_allclose(together, (first + second) / 2, rtol=1e-6)
    errors = together.to_numpy() - test["rating"].to_numpy()
    assert ensemble.test[0]["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
    found = comparison.assessment.differences
    assert [(d.first, d.second, d.metric) for d in found] == [
        (name, "damped bias", metric)
        for name in ("NCF, mse", "NCF, mse, mean of 2 seeds")
        for metric in ("rmse", "mae")
    ]
    of_baseline = comparison.entries[1].test[0]["rmse"]
    assert found[2].value == pytest.approx(ensemble.test[0]["rmse"] - of_baseline, rel=1e-4)


def small_search(storage: Path, name: str, count: int, **settings: Any) -> Workspace:
    """A run whose searches, also those of one loss, have ``count`` trials."""
    space = {
        "train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "model.hidden_dims": {"choices": [[8, 4], [4]]},
    }
    defaults = {"num_trials": count, "max_concurrent_trials": 1, "grace_epochs": 1, "space": space}
    train = {"epochs": 3, "batch_size": 512}
    compare = {"trials_per_loss": count}
    tune = defaults | settings
    return Workspace(job(storage, name=name, train=train, tune=tune, compare=compare))


def table(workspace: Workspace, folder: str = ".") -> list[dict[str, Any]]:
    return pq.read_table(Path(workspace.run.path, folder, "trials.parquet")).to_pylist()


def suggested_by_optuna(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Optuna alone suggests, one after the other, if trials come out as these have."""
    study = optuna.create_study(sampler=TPESampler(seed=0), direction="minimize")
    space = {
        "train.learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
        "model.hidden_dims": CategoricalDistribution(["[8, 4]", "[4]"]),
    }
    found = []
    for row in rows:
        trial = study.ask(fixed_distributions=space)
        found.append({f"config.{key}": value for key, value in trial.params.items()})
        study.tell(trial, row[METRIC])
    return found


def test_a_search_is_extended_and_cut_short_as_if_it_had_been_so_from_the_start(
    storage: Path,
    prepared: PreparedDataset,
    workers: Workers,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few, more = (small_search(storage, "in-parts", count, keep_models=2) for count in (10, 13))

    ten = search(few, prepared, workers)
    ten_rows = table(few)
    thirteen = search(more, prepared, workers)
    rows = table(more)
    assert_models_are_those_of_the_best(rows, more, prepared)
    capsys.readouterr()
    ten_again = search(few, prepared, workers)

    assert (ten.num_trials, thirteen.num_trials) == (10, 13)
    assert rows[:10] == ten_rows
    assert [row["trial"] for row in rows] == list(range(1, 14))
    parameters = [{k: v for k, v in row.items() if k.startswith("config.")} for row in rows]
    assert parameters == suggested_by_optuna(rows)
    assert {row["state"] for row in rows} == {"finished", "stopped"}
    for row in rows:
        assert (row["epochs"] < 3) is (row["state"] == "stopped")
    assert thirteen.result == min(row[METRIC] for row in rows)
    # All that Ray has logged belongs to these trials.
    logs = [path.parent.name for path in (storage / "runs/in-parts/ray/tune").glob("*/result.json")]
    assert sorted(name.split("_")[1] for name in logs) == sorted(row["trial_id"] for row in rows)

    assert ten_again == ten
    assert table(few) == ten_rows
    assert "10 of 10 trials are done already" in capsys.readouterr().out


def assert_models_are_those_of_the_best(
    rows: list[dict[str, Any]], workspace: Workspace, prepared: PreparedDataset
) -> None:
    best, second = sorted(rows, key=lambda row: row[METRIC])[:2]
    run = Path(workspace.run.path)
    found = json.loads((run / "best_config.json").read_text())
    assert found["trial"] == best["trial"]
    models = run / found["models"]
    assert {path.name for path in models.parent.iterdir()} == {best["trial_id"], second["trial_id"]}
    for row in (best, second):
        folder = models.parent / row["trial_id"]
        assert validation_rmse(folder / "best", prepared) == pytest.approx(row[METRIC])
        assert checkpoint.load(folder / "best").record["epoch"] == row["best_epoch"]
        assert checkpoint.load(folder / "last").record["epoch"] == row["epochs"]


def test_a_search_by_another_scheduler_sampler_and_metric_is_continued(
    storage: Path, prepared: PreparedDataset, workers: Workers
) -> None:
    others = {"scheduler": "hyperband", "sampler": "gp", "metric": "r2"}
    few, more = (small_search(storage, "others", count, **others) for count in (3, 5))

    # A search of one loss, so that no other test exports metrics of the same names.
    search(few, prepared, workers, "smooth_l1")
    three = table(few, "searches/smooth_l1")
    chosen = search(more, prepared, workers, "smooth_l1")

    rows = table(more, "searches/smooth_l1")
    assert rows[:3] == three
    assert {row["state"] for row in rows} <= {"finished", "stopped"}
    assert chosen.result == max(row["best_validation_r2"] for row in rows)
    folder = Path(more.run.path, "searches", "smooth_l1")
    best = json.loads((folder / "best_config.json").read_text())
    assert best["validation_r2"] == chosen.result
    record = checkpoint.load(folder / best["models"] / "best").record
    assert record["metrics"]["validation_r2"] == pytest.approx(chosen.result)


def test_what_makes_another_search(storage: Path, prepared: PreparedDataset) -> None:
    workspace = small_search(storage, "another", 3)
    open_records(workspace.config, prepared, workspace.run).start(1, "trial", {})

    def is_known(force: bool = False, **settings: Any) -> bool:
        config = small_search(storage, "another", 3, **settings).config
        return 1 in open_records(config, prepared, workspace.run, force=force)

    assert is_known(num_trials=9, max_concurrent_trials=2, executor="isolated")
    assert is_known(keep_models=3, live_table=True, also_on_cpus=False)
    assert not is_known(seed=1)
    assert not is_known(grace_epochs=2)
    assert not is_known(scheduler="median")
    assert not is_known(sampler="random")
    assert not is_known(metric="mae")
    assert not is_known(space={"model.dropout": {"low": 0.0, "high": 0.1}})
    assert is_known()
    assert not is_known(force=True)
    assert not is_known()


FINE: dict[str, Any] = {
    "train.loss": "mse",
    "model.head": "regression",
    "train.learning_rate": 0.01,
    "model.embedding_dim": 4,
}
FAILURES: dict[int, tuple[dict[str, Any], str]] = {
    2: ({"train.loss": "nll"}, 'train.loss = "nll" needs model.head = "ordinal"'),
    3: ({"train.learning_rate": 1e38}, "training diverged: the error of epoch 1 is"),
    4: ({"model.embedding_dim": IMPOSSIBLE}, "allocate"),
}


Exported = dict[tuple[str, frozenset[str]], float]
"""Metrics by name and by the values of this project's own tags."""


@dataclasses.dataclass(frozen=True)
class Failing:
    """A search some of whose trials fail, and what watched it."""

    workspace: Workspace
    chosen: BestTrial
    rows: dict[int, dict[str, Any]]
    """Of trials.parquet, by number."""
    exported: Exported
    """The last value of each metric."""
    highest: Exported
    """The highest value of each."""
    answers: dict[str, list[Any]] | None
    """What Prometheus answers each query of the dashboard for Grafana; None without Prometheus."""
    tracked: list[Run]
    """What MLflow's server has."""


@pytest.fixture(scope="module")
def failing(
    storage: Path,
    prepared: PreparedDataset,
    workers: Workers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Failing:
    """The trials run as interrupted ones do, which lets the test say what their parameters are."""
    folder = tmp_path_factory.mktemp("watched")
    with tracking_server(folder) as mlflow_uri:
        workspace = Workspace(
            job(
                storage,
                name="failing",
                model={"head": "ordinal"},
                train={"epochs": 2, "batch_size": 512},
                scaling={"num_workers": 1},
                tune={
                    "num_trials": 5,
                    "grace_epochs": 1,
                    "mlflow_uri": mlflow_uri,
                    "space": {
                        "train.loss": {"choices": ["mse", "nll"]},
                        "model.head": {"choices": ["regression", "ordinal"]},
                        "train.learning_rate": {"low": 1e-3, "high": 1e38, "log": True},
                        "model.embedding_dim": {"choices": [4, IMPOSSIBLE]},
                    },
                },
            )
        )
        records = open_records(workspace.config, prepared, workspace.run)
        for number in range(1, 6):
            changes, _ = FAILURES.get(number, ({}, ""))
            records.start(number, f"interrupted-{number}", FINE | changes)
        queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
        workers.close()  # it holds the CPUs
        with (
            prometheus(folder) as asked,
            scraping() as scraper,
            workers_of(workspace) as own,
        ):
            chosen = search(workspace, prepared, own)
            rows = {row["trial"]: row for row in table(workspace)}
            scraper.assert_soon(expected_metrics("failing", list(rows.values())))
            of_run = [query.replace("$run", "failing") for query in queries]
            answers = asked.until_answered(of_run) if asked else None
        tracked = runs_of(mlflow_uri, "failing")
    return Failing(workspace, chosen, rows, scraper.last, scraper.highest, answers, tracked)


def test_a_trial_that_raises_diverges_or_asks_too_much_is_recorded_with_its_reason(
    failing: Failing,
) -> None:
    rows, config = failing.rows, failing.workspace.config
    assert {number: row["state"] for number, row in rows.items()} == {
        1: "finished",
        2: "failed",
        3: "failed",
        4: "failed",
        5: "finished",
    }
    assert failing.chosen.experiment == with_parameters(config.experiment, FINE)
    assert failing.chosen.num_trials == 5
    blocks = tuple(search_blocks(list(rows.values()), config.tune.space))
    report = Report("A run", (), (), (ReportSection("Search", blocks),))
    for number, (changes, reason) in FAILURES.items():
        assert rows[number].items() >= {f"config.{k}": v for k, v in changes.items()}.items()
        assert reason in rows[number]["error"]
        assert reason in report.markdown("plots")
        assert reason in unescape(report.html())
    assert (
        "2 trained to their end, 0 stopped by ASHA because they fell behind, 3 failed"
        in report.markdown("plots")
    )


def test_ray_exports_the_best_value_and_the_worker_groups_of_a_search(failing: Failing) -> None:
    best = min(row[METRIC] for row in failing.rows.values() if row["state"] == "finished")
    assert failing.exported["search_best", frozenset({"failing", "tune", "rmse"})] == best
    assert failing.highest["worker_groups", frozenset({"failing", "ready"})] in (1, 2)
    assert ("worker_groups", frozenset({"failing", "waiting"})) in failing.highest


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
def test_prometheus_answers_every_query_of_the_dashboard(failing: Failing) -> None:
    assert failing.answers is not None
    by_title = {
        panel["title"]: [
            result
            for target in panel["targets"]
            for result in failing.answers[target["expr"].replace("$run", "failing")]
        ]
        for panel in PANELS
    }
    assert all(by_title.values()), {title for title, found in by_title.items() if not found}
    assert trials_by_state(failing.answers) == {
        "finished": 2,
        "failed": 3,
        "running": 0,
        "stopped": 0,
    }
    best = min(row[METRIC] for row in failing.rows.values() if row["state"] == "finished")
    (found,) = by_title["Best so far"]
    assert float(found["value"][1]) == pytest.approx(best)
    errors = {
        result["metric"]["task"]: float(result["value"][1])
        for result in by_title["Best validation RMSE by model"]
    }
    assert errors.keys() >= {"tune trial 1", "tune trial 5"}
    assert errors["tune trial 1"] == pytest.approx(failing.rows[1][METRIC])


def test_tensorboard_shows_each_trial_with_its_parameters(failing: Failing) -> None:
    logs = Path(failing.workspace.run.path) / "ray" / "tune"
    assert_tensorboard_tells_of(list(failing.rows.values()), logs)


def test_mlflow_has_a_run_for_each_trial(failing: Failing) -> None:
    found = {
        run.info.run_name: (
            run.info.status,
            int(run.data.params["model.embedding_dim"]),
            run.data.metrics.get(METRIC),
        )
        for run in failing.tracked
    }
    assert len(found) == len(failing.tracked)
    assert found == {
        f"tune trial {number}": (
            row["state"].upper(),
            row["config.model.embedding_dim"],
            row[METRIC],
        )
        for number, row in failing.rows.items()
    }


def exported() -> Exported:
    """What Ray exports of this project's metrics now."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("ray_ratings_"), of_project(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("ray_ratings_")
    }


def of_project(labels: dict[str, str]) -> frozenset[str]:
    return frozenset(
        labels[name] for name in ("run", "task", "search", "state", "metric") if name in labels
    )


@dataclasses.dataclass
class Scraper:
    """The last value of each metric, as Prometheus keeps them: Ray drops a gauge soon after it was
    last set."""

    last: Exported = dataclasses.field(default_factory=dict)
    highest: Exported = dataclasses.field(default_factory=dict)
    changed: threading.Condition = dataclasses.field(default_factory=threading.Condition)

    def assert_soon(self, expected: Exported) -> None:
        """Ray collects metrics every ten seconds."""
        with self.changed:
            self.changed.wait_for(lambda: expected.items() <= self.last.items(), timeout=60)
            missing = dict(expected.items() - self.last.items())
            assert not missing, f"they are not in {self.last}"


@contextmanager
def scraping() -> Iterator[Scraper]:
    """A scraper that is at work during the block."""
    scraper, done = Scraper(), threading.Event()

    def scrape() -> None:
        while not done.wait(0.5):
            found = exported()
            with scraper.changed:
                scraper.last.update(found)
                for name, value in found.items():
                    scraper.highest[name] = max(value, scraper.highest.get(name, value))
                scraper.changed.notify_all()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield scraper
    finally:
        done.set()
        thread.join()


def logged(file: Path) -> dict[str, list[float]]:
    """The scalars in one of TensorBoard's files, which are records of TensorFlow, by name.

    Each is a length of 8 bytes, 4 of its checksum, so many bytes, and 4 of their checksum.
    """
    content, position = file.read_bytes(), 0
    found: dict[str, list[float]] = {}
    while position < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        event = Event.FromString(content[position + 12 : position + 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(value.simple_value)
        position += 12 + length + 4
    return found


def expected_metrics(run: str, rows: list[dict[str, Any]]) -> Exported:
    """Of the trials of a run's search."""
    states = [row["state"] for row in rows]
    expected: Exported = {
        ("trials", frozenset((run, "tune", state))): states.count(state)
        for state in ("running", "finished", "stopped", "failed")
    }
    for row in rows:
        if row["state"] != "failed":
            of_trial = frozenset((run, f"tune trial {row['trial']}"))
            expected["epochs_total", of_trial] = row["epochs"]
            expected["best_validation_rmse", of_trial] = row[METRIC]
    return expected


def trials_by_state(answers: dict[str, list[Any]]) -> dict[str, int]:
    """What Prometheus answers about the number of trials."""
    (found,) = (answers[query] for query in answers if "ray_ratings_trials" in query)
    return {result["metric"]["state"]: int(result["value"][1]) for result in found}


@dataclasses.dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def until_answered(self, queries: list[str]) -> dict[str, list[Any]]:
        """The answers, once all queries have some and no trial runs any more.

        Ray collects metrics every ten seconds.
        """
        deadline, pause = time.monotonic() + 60, threading.Event()
        while True:
            found = {query: self._ask(query) for query in queries}
            is_over = trials_by_state(found).get("finished") == 2
            if (is_over and all(found.values())) or time.monotonic() > deadline:
                return found
            pause.wait(0.5)

    def _ask(self, query: str) -> list[Any]:
        address = f"{self.url}/api/v1/query?{urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(address, timeout=20) as answer:
                return list(json.load(answer)["data"]["result"])
        except urllib.error.URLError:  # it has not started yet
            return []


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus | None]:
    """A Prometheus server with the configuration that is deployed; None if it is not installed."""
    if PROMETHEUS is None:
        yield None
        return
    config = yaml.safe_load((GRAFANA / "prometheus.yaml").read_text())
    config["global"]["scrape_interval"] = "1s"
    (scraped,) = config["scrape_configs"]
    (file,) = scraped["file_sd_configs"][0]["files"]
    node = Path(ray._private.worker._global_node.get_session_dir_path()).parent
    scraped["file_sd_configs"] = [{"files": [str(node / Path(file).name)]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    command = (
        PROMETHEUS,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    process = subprocess.Popen(command)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=60)


def assert_tensorboard_tells_of(rows: list[dict[str, Any]], logs: Path) -> None:
    for row in rows:
        if row["state"] != "failed":
            folder = logs / f"trial-{row['trial']:05d}_{row['trial_id']}"
            (file,) = folder.glob("events.out.tfevents.*")
            errors = logged(file)["ray/tune/validation_rmse"]
            assert len(errors) == row["epochs"]
            assert min(errors) == pytest.approx(row[METRIC])


def test_functions_are_called_by_workers_beside_the_training_of_models(
    storage: Path, prepared: PreparedDataset, workers: Workers
) -> None:
    config = job(storage, train={"epochs": 1}, scaling={"num_workers": 1})
    calls = [CallTask(f"call {number}", prepared, os.getpid) for number in range(3)]
    model = TrainingTask("model", prepared, config.experiment)
    found: list[CallResult] = []
    run = partial(run_tasks, workers=workers, config=config)

    (trained,) = train_beside(calls, run, found.append)([model])

    assert trained.best_epoch == 1
    assert sorted(each.name for each in found) == ["call 0", "call 1", "call 2"]
    processes = {each.value for each in found}
    assert os.getpid() not in processes
    assert len(processes) <= 2  # one for each CPU

    failing = [CallTask("call", prepared, partial(int, "no number"))]
    with pytest.raises(TrainingError, match=r"training of call failed: .*no number"):
        list(train_beside(failing, run)([]))


def test_recommendations_of_all_users_are_written_part_by_part_and_those_there_are_kept(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommendation, "_LEAST_USERS", 1)
    workspace = kept(tmp_path, CLOSED)
    splits = {"train": ROWS, "validation": ROWS[:0], "test": ROWS[:0]}
    prepared = write_prepared(tmp_path / "prepared", splits, FITTED)
    model = FinalModel(workspace.paths.checkpoint, RunMetrics.from_json(METRICS), prepared)

    def recommended() -> pd.DataFrame:
        folder = recommendation.recommend(workspace, [model], workers)
        assert [file.name for file in folder.list_files()] == [
            "000000000001.parquet",
            "000000000002.parquet",
        ]
        return pd.read_parquet(folder.path)

    found = recommended()
    seen = rated_movies(prepared, SPLITS)
    expected = recommendation.recommendations(
        made_recommender(workspace), np.array([1, 2]), seen, 10, Ordering(min_ratings=0)
    )
    assert len(expected) == 3 + 3
    pd.testing.assert_frame_equal(found, expected.to_pandas())

    inputs = recommendation.RecommendInputs((model,), workspace.config.recommend)
    there = expected.slice(0, 1)
    checksums = recommendation._checksums(workspace.paths.checkpoint)
    assert len(checksums) == 1
    key = fingerprint(key_of(inputs), *checksums)
    part = workspace.paths.ray("recommend") / key[:16] / "000000000001.parquet"
    part.write_table(there)
    workspace.recommendations.delete()
    again = recommended()
    expected_again = pa.concat_tables([there, expected.slice(sum(found["user_id"] == 10))])
    pd.testing.assert_frame_equal(again, expected_again.to_pandas())
    assert not workspace.paths.ray("recommend").exists()


@pytest.mark.parametrize(
    ("num_users", "parts"),
    [
        (1, [(1, 2)]),
        (2000, [(1, 2001)]),
        (2001, [(1, 2001), (2001, 2002)]),
    ],
)
def test_every_user_is_in_one_part(num_users: int, parts: list[tuple[int, int]]) -> None:
    assert [(part.start, part.stop) for part in recommendation._parts(num_users)] == parts
    many = recommendation._parts(5_000_001)
    assert len(many) == 1000
    assert (many[0].start, many[-1].stop) == (1, 5_000_002)
