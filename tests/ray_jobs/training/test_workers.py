"""Worker groups that train one model after another, on a real local Ray.

The first tests share groups, which take seconds to start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from ray.actor import ActorHandle
from ray.util import placement_group_table
from ray.util.state import list_actors, list_tasks

from foundation.console import log_to_console
from foundation.storage import Storage
from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ncf.inference import checkpoint
from ncf.models.targets import Objective
from ncf.training.loop import Training
from ncf.training.trainer import build
from ray_jobs.cluster.resources import GroupPlan, Resources
from ray_jobs.config import JobConfig, with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.results.run import Workspace
from ray_jobs.stages.tuning import search
from ray_jobs.training.lost_workers import Retries
from ray_jobs.training.pool_run import RunHere
from ray_jobs.training.run_tasks import train_tasks
from ray_jobs.training.task_queue import GroupId, Over, TaskQueue
from ray_jobs.training.tasks import TrainingResult, TrainingTask
from ray_jobs.training.workers import Workers, start_queue
from tests.ray_jobs.small import IMPOSSIBLE, job, validation_rmse
from tests.support import ends

pytestmark = pytest.mark.ray(seconds=270)

EXPERIMENT = {
    "scaling": {"num_workers": 1},
    "train": {"epochs": 3, "batch_size": 512, "patience": 0},
}
ENDLESS = {"train.epochs": 100_000, "train.compile": "off"}
DIVERGING = {"train.learning_rate": 1e38, "train.loss": "mse"}


def trained_alone(experiment: ExperimentConfig, prepared: PreparedDataset) -> list[float]:
    """Validation RMSE of each epoch, in this process."""
    rows = prepared.rows("train")
    assert rows is not None
    objective = Objective(experiment.train, experiment.time_decay, prepared.preprocessor)
    model = build(experiment, prepared.preprocessor, rows)
    errors: list[float] = []
    for epoch in Training(model, rows, prepared.rows("validation"), objective):
        assert epoch.validation is not None
        errors.append(epoch.validation.stars.rmse)
    return errors


class Client:
    """Adds tasks to a queue, one after the other."""

    def __init__(
        self,
        queue: ActorHandle[TaskQueue],
        prepared: PreparedDataset,
        experiment: ExperimentConfig,
        models: Storage | None = None,
    ) -> None:
        self.queue = queue
        self.count = 0
        self._prepared = prepared
        self._experiment = experiment
        self._models = models

    def add(self, changes: dict[str, Any], retries: int = 0) -> str:
        self.count += 1
        name = f"task-{self.count}"
        experiment = with_parameters(self._experiment, changes)
        models = self._models / name if self._models else None
        task = TrainingTask(name, self._prepared, experiment, models=models)
        ray.get(self.queue.add.remote(task, Retries(preemptions=retries)))
        return name

    def next(self, name: str) -> dict[str, Any] | Over:
        return ray.get(self.queue.result.remote(name), timeout=60)

    def train(self, changes: dict[str, Any]) -> tuple[list[float], str | None]:
        """Validation RMSE of each epoch, and the reason if it failed."""
        name = self.add(changes)
        found = self.rest(name)
        ray.get(self.queue.drop.remote(name))
        return found

    def rest(self, name: str) -> tuple[list[float], str | None]:
        """The same of a task that is there already."""
        epochs = []
        while not isinstance(found := self.next(name), Over):
            epochs.append(found["validation_rmse"])
        return epochs, found.error

    def begin_endless(self, retries: int = 0) -> str:
        """A task that is being trained."""
        name = self.add(ENDLESS, retries)
        assert not isinstance(self.next(name), Over)
        return name


def whole(epochs: list[float], rel: float = 1e-6) -> Any:
    """The result of a task that ran to its end."""
    return pytest.approx(epochs, rel=rel), None


def processes() -> list[int]:
    """Process ids of the workers that train, or could."""
    actors = list_actors(filters=[("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")])
    return [actor.pid for actor in actors]


def living() -> dict[str, tuple[int, str]]:
    """Process id and kind of every living actor."""
    actors = list_actors(filters=[("state", "!=", "DEAD")])
    return {actor.actor_id: (actor.pid, actor.class_name) for actor in actors}


def left_of(started: dict[str, tuple[int, str]], before: dict[str, tuple[int, str]]) -> list[str]:
    """What holds something or runs still, of all that was started since ``before``."""
    new = [actor for key, actor in started.items() if key not in before]
    running = [kind for process, kind in new if not ends(process, 20)]
    # Last: a process that removes groups runs until it has.
    states = {group["state"] for group in placement_group_table().values()}
    return [*running, *(states - {"REMOVED"})]


def test_executors_and_local_mode_give_the_same_trials(
    storage: Path, prepared: PreparedDataset, workers: Workers
) -> None:
    found = {}
    for executor, num_workers, num_trials in (
        ("persistent", 1, 2),
        ("persistent", 0, 2),
        ("isolated", 1, 1),
    ):
        name = f"{executor}-{num_workers}"
        config = job(
            storage,
            name=name,
            scaling={"num_workers": num_workers},
            train={"epochs": 3, "batch_size": 512},
            tune={
                "executor": executor,
                "num_trials": num_trials,
                "max_concurrent_trials": 1,
                "grace_epochs": 3,
                "metric": "mae",
                "space": {
                    "train.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
                    "model.hidden_dims": {"choices": [[8, 4], [4]]},
                },
            },
        )
        chosen = search(Workspace(config), prepared, workers)
        assert chosen.num_trials == num_trials
        found[name] = trials(config)
        if executor == "persistent":
            assert_the_dashboard_tells_of(found[name])
    first, second = found["persistent-1"].values()
    for epochs in (first, second):
        errors = [error for _, error, _, _ in epochs]
        # The best epoch, and the best value so far, are those of the search's metric.
        assert [best for _, _, best, _ in epochs] == [min(errors[: n + 1]) for n in range(3)]
        assert epochs[-1][3] == errors.index(min(errors)) + 1
    assert found["persistent-0"] == found["persistent-1"]
    assert found["isolated-1"].items() <= found["persistent-1"].items()
    assert len(found["isolated-1"]) == 1


def assert_the_dashboard_tells_of(
    trials: dict[str, list[tuple[int, float, float, int]]],
) -> None:
    """By the names of a job's tasks, whose list its page shows, and of its actors."""
    expected = set()
    for number, (values, epochs) in enumerate(trials.items(), start=1):
        parameters = json.loads(values)
        settings = (
            f"with learning_rate={parameters['train.learning_rate']:.3g}, "
            f"hidden_dims={parameters['model.hidden_dims']}"
        )
        expected |= {f"tune trial {number} {settings}", f"tune trial {number} before epoch 1"}
        expected |= {
            f"tune trial {number} after epoch {epoch}: best_validation_mae {best:.4f}"
            for epoch, _, best, _ in epochs[:-1]
        }
        last, _, best, _ = epochs[-1]
        expected.add(
            f"tune trial {number} after epoch {last}: best_validation_mae {best:.4f} {settings}"
        )
    deadline = time.monotonic() + 30  # processes tell of their tasks every second
    while missing := expected - {task.name for task in list_tasks(limit=10_000)}:
        assert time.monotonic() < deadline, missing
    drivers = list_actors(filters=[("class_name", "=", "PersistentTrial")], detail=True)
    assert {actor.repr_name for actor in drivers} == {"driver of tune trials"}


def trials(config: JobConfig) -> dict[str, list[tuple[int, float, float, int]]]:
    """Each trial's epochs, as Ray Tune wrote them, by its parameters."""
    found = {}
    folder = Path(config.storage) / "runs" / config.name / "ray" / "tune"
    for file in sorted(folder.glob("trial-*/result.json")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        found[json.dumps(rows[0]["config"])] = [
            (row["epoch"], row["validation_mae"], row["best_validation_mae"], row["best_epoch"])
            for row in rows
        ]
    return found


def test_two_workers_give_what_one_gives_and_the_jobs_own_process(
    storage: Path,
    prepared: PreparedDataset,
    workers: Workers,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """1,052 training and 150 validation rows: no batch size below divides evenly."""
    config = job(
        storage,
        model={"dropout": 0.0},
        train={"epochs": 2, "batch_size": 101, "patience": 0},
    )
    ways = {"resident": {}, "streaming": {"train.rows": "streaming"}}
    where = Workspace(config).run / "kept"
    log_to_console()
    found: dict[str, list[Kept]] = {name: [] for name in ways}
    for num_workers in (0, 1, 2):
        folder = where / f"workers-{num_workers}"
        tasks = [
            TrainingTask(
                name,
                prepared,
                with_parameters(config.experiment, changes),
                score_test=True,
                models=folder / name,
                predictions=folder / f"{name}.parquet",
            )
            for name, changes in ways.items()
        ]
        scaling = config.scaling.model_copy(update={"num_workers": num_workers})
        one_group = config.tune.model_copy(update={"max_concurrent_trials": 1})
        with_workers = config.model_copy(update={"scaling": scaling, "tune": one_group})
        results = {each.name: each for each in train_tasks(tasks, workers, with_workers)}
        # Batches of 101 rows are too few to share.
        assert ("likely slower" in capsys.readouterr().out) is (num_workers == 2)
        for name in ways:
            predictions = (folder / str(results[name].predictions)).read_table().to_pandas()
            model = checkpoint.load(Path(folder.path) / name / "last").model
            found[name].append(Kept(results[name], model.network.state_dict(), predictions))

    assert [each.result.rows.streamed for each in found["resident"]] == [()] * 3
    splits = ("train", "validation", "test")
    assert [each.result.rows.streamed for each in found["streaming"]] == [splits] * 3
    for local, one, two in found.values():
        assert local.result.test == one.result.test
        pd.testing.assert_frame_equal(local.predictions, one.predictions, check_exact=True)
        for name, value in one.weights.items():
            assert torch.equal(local.weights[name], value), name
        assert_two_gave_what_one_gave(one, two, prepared)
    # Their orders differ, as those of two seeds do.
    errors = [found[name][0].result.test["rmse"] for name in ways]  # type: ignore[index]
    assert errors[0] != errors[1]
    assert errors[0] == pytest.approx(errors[1], rel=0.1)


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a task came to, and what is left of it."""

    result: TrainingResult
    weights: dict[str, torch.Tensor]
    predictions: pd.DataFrame


def assert_two_gave_what_one_gave(one: Kept, two: Kept, prepared: PreparedDataset) -> None:
    assert one.result.test is not None
    assert two.result.test is not None
    assert one.result.test["num_ratings"] == two.result.test["num_ratings"] == 301
    for name in ("rmse", "mae", "r2"):
        for of_one, of_two in (
            (one.result.test, two.result.test),
            (one.result.test["decayed"], two.result.test["decayed"]),
        ):
            assert of_two[name] == pytest.approx(of_one[name], rel=1e-4)
    for epoch_of_one, epoch_of_two in zip(one.result.epochs, two.result.epochs, strict=True):
        assert epoch_of_two["validation_rmse"] == pytest.approx(
            epoch_of_one["validation_rmse"], rel=1e-4
        )
    pd.testing.assert_frame_equal(two.predictions, one.predictions, rtol=1e-4)
    actual = prepared.table("test", ["rating"])["rating"].to_numpy()
    mean_error = np.abs(two.predictions["stars"] - actual).mean()
    assert mean_error == pytest.approx(two.result.test["mae"], rel=1e-5)
    for name, value in one.weights.items():
        np.testing.assert_allclose(two.weights[name], value, rtol=1e-3, atol=1e-4)


def test_two_workers_stop_together_and_a_failure_affects_one_model(
    storage: Path, prepared: PreparedDataset, workers: Workers
) -> None:
    config = job(storage, **EXPERIMENT, model={"dropout": 0.0})
    resources = dataclasses.replace(Resources.of(config), num_workers=2)
    expected = whole(trained_alone(config.experiment, prepared), rel=1e-4)
    queue = workers.queue(GroupPlan(resources), 1)
    client = Client(queue, prepared, config.experiment)
    stopped = client.begin_endless()
    both = set(processes())
    ray.get(queue.drop.remote(stopped))
    assert client.train({}) == expected
    assert "training diverged" in str(client.train(DIVERGING)[1])
    assert client.train({}) == expected
    assert set(processes()) == both
    assert len(both) == 2

    assert "allocate" in str(client.train({"model.embedding_dim": IMPOSSIBLE})[1])
    assert client.train({}) == expected

    killed = client.begin_endless()
    os.kill(processes()[1], signal.SIGKILL)
    assert client.rest(killed)[1]
    assert client.train({}) == expected


def test_groups_of_one_worker_share_a_trainer_and_lose_their_workers_alone(
    storage: Path, prepared: PreparedDataset, workers: Workers
) -> None:
    config = job(storage, **EXPERIMENT)
    expected = whole(trained_alone(config.experiment, prepared))
    before = living()
    queue = workers.queue(GroupPlan.of(config), 2)
    client = Client(queue, prepared, config.experiment)
    first, second = client.begin_endless(retries=1), client.begin_endless()
    both = processes()
    kinds = Counter(kind for key, (_, kind) in living().items() if key not in before)
    assert (kinds["TrainController"], kinds["RayTrainWorker"]) == (1, 2)

    os.kill(both[0], signal.SIGKILL)
    names = {first, second}
    while len(names) == 2:  # epochs of both, until one says that it was lost
        for name in list(names):
            found = client.next(name)
            if isinstance(found, Over) or found.get("lost"):
                names.discard(name)
                ray.get(queue.drop.remote(name))
    (other,) = names
    assert not isinstance(client.next(other), Over)
    assert len({*both} & {*processes()}) == 1
    ray.get(queue.drop.remote(other))
    assert client.train({}) == expected


@dataclasses.dataclass
class EndlessTrainer:
    """Stands for a ``TorchTrainer`` whose workers are the test."""

    def fit(self) -> None:
        threading.Event().wait()


def test_1500_workers_that_wait_do_not_stop_the_queue(local_ray: None) -> None:
    queue = start_queue()
    ids = [GroupId(pool, number) for pool in range(15) for number in range(100)]
    run = RunHere(cast(Any, EndlessTrainer()))
    ray.get([queue.start.remote(pool, 100, run) for pool in range(15)])
    ray.get([queue.join.remote(each, str(each)) for each in ids])
    waiting = [queue.next.remote(each, str(each), 0) for each in ids]
    assert ray.get(queue.num_ready.remote(), timeout=60) == 1500
    assert ray.wait(waiting, timeout=0)[0] == []
    for number in range(1500):
        task = TrainingTask(str(number), cast(Any, None), ExperimentConfig())
        queue.add.remote(task, Retries())
    orders = ray.get(waiting, timeout=60)
    assert sorted(int(order.task.name) for order in orders) == list(range(1500))
    ray.kill(queue)


@pytest.fixture
def _no_other_groups(workers: Workers) -> None:
    workers.close()


@pytest.mark.usefixtures("_no_other_groups")
def test_one_worker_trains_many_models_and_only_a_crash_replaces_it_so_many_times(
    storage: Path, prepared: PreparedDataset
) -> None:
    config = job(storage, **EXPERIMENT)
    where = Workspace(config).run / "ray" / "one"
    before = living()
    expected = {
        loss: trained_alone(with_parameters(config.experiment, {"train.loss": loss}), prepared)
        for loss in ("l1", "mse")
    }
    models = Workspace(config).run / "models"
    with Workers(where, max_failures=1) as workers:
        queue = workers.queue(GroupPlan.of(config), 1)
        client = Client(queue, prepared, config.experiment, models)

        assert client.train({"train.loss": "l1"}) == whole(expected["l1"])
        (worker,) = processes()

        failed = client.train({"model.embedding_dim": IMPOSSIBLE})
        assert failed[0] == []
        assert "allocate" in str(failed[1])

        assert "training diverged" in str(client.train(DIVERGING)[1])

        stopped = client.begin_endless()
        ray.get(queue.drop.remote(stopped))
        assert client.train({"train.loss": "mse"}) == whole(expected["mse"])
        assert processes() == [worker]

        killed = client.begin_endless()
        waiting = client.add({"train.loss": "l1"})
        os.kill(worker, signal.SIGKILL)
        assert "worker" in str(client.rest(killed)[1])
        assert client.rest(waiting) == whole(expected["l1"])
        (replacement,) = processes()
        assert replacement != worker

        # Now the group has failed as often as it may.
        client.begin_endless()
        unserved = client.add({})
        os.kill(replacement, signal.SIGKILL)
        end = client.next(unserved)
        assert isinstance(end, Over)
        assert end.error
        assert client.train({}) == ([], end.error)
        started = living()

    assert left_of(started, before) == []
    finished = Path(models.path) / "task-1"
    assert validation_rmse(finished / "best", prepared) == pytest.approx(min(expected["l1"]))
    assert validation_rmse(finished / "last", prepared) == pytest.approx(expected["l1"][-1])
    # Also of the trial that was stopped; the one without enough memory has none, and neither has
    # the one that was killed.
    kept = {path.name for path in finished.parent.iterdir()}
    assert kept == {"task-1", stopped, "task-5", waiting}
    last = checkpoint.load(finished.parent / stopped / "last")
    assert last.record["epoch"] >= 1
    assert last.record["metrics"]["validation_rmse"] == pytest.approx(
        validation_rmse(finished.parent / stopped / "last", prepared), rel=1e-5
    )


@pytest.mark.usefixtures("_no_other_groups")
def test_workers_killed_while_starting_leave_nothing(
    storage: Path, prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the search fails meanwhile."""
    monkeypatch.setattr("ray_jobs.training.workers._SECONDS_TO_EXIT", 0)
    config = job(storage, **EXPERIMENT)
    before = living()
    where = Workspace(config).run / "ray" / "starting"
    with contextlib.suppress(TrainingError), Workers(where, max_failures=5) as workers:
        client = Client(workers.queue(GroupPlan.of(config), 1), prepared, config.experiment)
        name = client.begin_endless()
        os.kill(processes()[0], signal.SIGKILL)
        assert client.rest(name)[1]
        started = living()
        raise TrainingError

    assert left_of(started, before) == []
