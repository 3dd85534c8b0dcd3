"""A search that is killed, and what it goes on from."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler

from foundation.storage import Storage
from ray_jobs.config import Dimension
from ray_jobs.search.resume import Recorder, ResumableSampler, ResumableScheduler, optuna_search
from ray_jobs.search.samplers import sampler
from ray_jobs.search.schedulers import SchedulerSettings, scheduler
from ray_jobs.search.space import decoded
from ray_jobs.search.trials import TrialRecord, TrialRecords
from ray_jobs.training.telemetry import METRIC, SEARCH_METRICS
from tests.support import TINY, assert_all_end, left_after, run_module, running_module

pytestmark = pytest.mark.ray(seconds=130)

SPACE = {
    "train.learning_rate": Dimension(low=1e-3, high=1e-1, log=True),
    "model.embedding_dim": Dimension(choices=(4, 8, 16)),
    "model.hidden_dims": Dimension(choices=((8,), (16, 8))),
}


def judged(parameters: dict[str, Any]) -> float:
    """A made-up error, lowest for a rate near 0.02 and the size 8."""
    return (
        1 + abs(parameters["train.learning_rate"] - 0.02) + (parameters["model.embedding_dim"] != 8)
    )


class Run:
    """One life of a search without Ray, whose trials start and end as it is told."""

    def __init__(self, folder: Path, count: int = 30, name: str = "tpe") -> None:
        self.records = TrialRecords(Storage.at(folder))
        self.inner = optuna_search(SPACE, sampler(name, 7), SEARCH_METRICS["rmse"])
        self.sampler = ResumableSampler(self.inner, SPACE, self.records, count)
        self.life = os.urandom(4).hex()

    def start(self, number: int) -> dict[str, Any]:
        """The next trial; ``number`` is the one that it should be."""
        trial_id = f"{self.life}-{number}"
        parameters = self.sampler.suggest(trial_id)
        assert parameters is not None
        assert self.records.of(trial_id).number == number
        return parameters

    def end(self, number: int, error: str | None = None) -> None:
        record = self.records[number]
        epochs = ({"epoch": 1, METRIC: judged(record.parameters)},)
        self.sampler.on_trial_complete(record.trial_id, epochs[0], error=bool(error))
        state = "failed" if error else "finished"
        self.records.end(record.trial_id, state=state, error=error, epochs=epochs)


@pytest.mark.parametrize("name", ["tpe", "random", "gp"])
def test_trials_that_follow_are_those_of_a_search_that_was_not_interrupted(
    name: str, tmp_path: Path
) -> None:
    """Two at a time, one of them fails; beyond the first ten, which are random in most samplers."""

    def begin(run: Run) -> None:
        for number in range(1, 16):
            run.start(number)
            if number > 1:
                run.end(number - 1, "no memory" if number == 5 else None)

    def go_on(run: Run) -> list[dict[str, Any]]:
        found = []
        for number in range(16, 31):
            run.end(number - 1)
            found.append(run.start(number))
        return found

    whole = Run(tmp_path / "whole", name=name)
    begin(whole)
    begin(Run(tmp_path / "killed", name=name))

    continued = Run(tmp_path / "killed", name=name)
    assert continued.start(15) == whole.records[15].parameters  # it was running
    assert go_on(continued) == go_on(whole)
    first, last = whole.records[10].parameters, whole.records[30].parameters
    assert first != last


def test_several_interrupted_trials_come_first_and_keep_their_parameters(tmp_path: Path) -> None:
    run = Run(tmp_path)
    parameters = [run.start(number) for number in (1, 2, 3)]
    run.end(2)

    again = Run(tmp_path)

    assert [again.start(1), again.start(3)] == [parameters[0], parameters[2]]
    assert again.start(4) not in parameters
    assert again.records.missing(6) == [1, 3, 4, 5, 6]


def test_the_sampler_believes_the_records_if_it_would_have_suggested_something_else(
    tmp_path: Path,
) -> None:
    """The second one is what it suggests itself, the others no seed does."""
    second = Run(tmp_path / "itself")
    second.start(1)
    records = TrialRecords(Storage.at(tmp_path / "others"))
    made_up = {"train.learning_rate": 0.5e-1, "model.embedding_dim": 16, "model.hidden_dims": [8]}
    for number, parameters in enumerate([made_up, second.start(2), made_up, made_up], start=1):
        records.start(number, f"trial-{number}", parameters)
        if number < 4:
            epochs = ({"epoch": 1, METRIC: float(number)},)
            outcome = ("failed", "no memory") if number == 3 else ("finished", None)
            records.end(f"trial-{number}", state=outcome[0], error=outcome[1], epochs=epochs)

    run = Run(tmp_path / "others")
    assert run.start(4) == made_up
    run.end(4)

    study = run.inner._ot_study
    known = [
        (decoded(SPACE, t.params), t.value) for t in study.get_trials(states=[TrialState.COMPLETE])
    ]
    expected = [(second.records[2].parameters, 2.0), (made_up, 1.0), (made_up, judged(made_up))]
    assert sorted(known, key=str) == sorted(expected, key=str)
    assert study.get_trials(states=[TrialState.RUNNING]) == []


@dataclass(frozen=True, eq=False)
class Trial:
    """What a scheduler looks at of Ray Tune's trials."""

    trial_id: str


FIRST_BRACKET = 1
"""A seed with which hyperband's trials 1, 2, 3 and 5 are in the first bracket."""


def shown(name: str, records: TrialRecords, error: float) -> str:
    """The decision on the second epoch of a trial."""
    settings = SchedulerSettings(
        metric=records.metric,
        epochs=8,
        grace_epochs=2,
        reduction_factor=2.0,
        seed=FIRST_BRACKET,
        number_of=lambda trial_id: records.of(trial_id).number,
    )
    resumed = ResumableScheduler(scheduler(name, settings), records)
    trial: Any = Trial("new")
    records.start(5, "new", {})
    resumed.on_trial_add(None, trial)
    decision = resumed.on_trial_result(None, trial, {"epoch": 2, METRIC: error})
    assert resumed.has_stopped(trial) is (decision == TrialScheduler.STOP)
    assert resumed.metric == (None if name == "none" else METRIC)
    return decision


@pytest.mark.parametrize(
    ("name", "error", "decision"),
    [
        ("asha", 1.4, TrialScheduler.CONTINUE),
        ("asha", 1.6, TrialScheduler.STOP),
        ("hyperband", 1.4, TrialScheduler.CONTINUE),
        ("hyperband", 1.6, TrialScheduler.STOP),
        ("median", 1.4, TrialScheduler.CONTINUE),
        ("median", 1.6, TrialScheduler.STOP),
        ("none", 1e9, TrialScheduler.CONTINUE),
    ],
)
def test_a_trial_is_stopped_by_what_earlier_runs_have_found(
    name: str, error: float, decision: str, tmp_path: Path
) -> None:
    """Of 1, 1.5 and 2 at the rung of the second epoch, the better half is up to 1.5, which is the
    median of the trials' means from the second epoch on too."""
    records = TrialRecords(Storage.at(tmp_path))
    for number, found in enumerate((1.0, 1.5, 2.0), start=1):
        records.start(number, f"trial-{number}", {})
        epochs = ({"epoch": 1, METRIC: 9.0}, {"epoch": 2, METRIC: found})
        records.end(f"trial-{number}", state="finished", epochs=epochs)
    records.start(4, "interrupted", {})

    assert shown(name, TrialRecords(Storage.at(tmp_path)), error) == decision

    nothing_before = TrialRecords(Storage.at(tmp_path / "empty"))
    assert shown(name, nothing_before, error) == TrialScheduler.CONTINUE


def test_records_are_read_as_they_were_written_and_half_a_file_is_none(tmp_path: Path) -> None:
    records = TrialRecords(Storage.at(tmp_path))
    records.start(1, "a", {"model.dropout": 0.1 + 0.2, "model.hidden_dims": [8, 4]})
    records.start(2, "b", {})
    epochs = ({"epoch": 1, METRIC: 2 / 3},)
    ended = records.end("a", state="stopped", epochs=epochs, best_epoch=1, seconds=0.1)
    (tmp_path / ".00002.json.1f.part").write_text('{"number": ')

    read = TrialRecords(Storage.at(tmp_path))

    parameters = {"model.dropout": 0.1 + 0.2, "model.hidden_dims": [8, 4]}
    assert ended == TrialRecord(1, "a", parameters, 1, 3, "stopped", None, epochs, 1, 0.1)
    assert read.ended() == [ended]
    assert [(record.number, end) for record, end in read.events()] == [
        (1, False),
        (2, False),
        (1, True),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00001.json", "00002.json"]


def test_seconds_are_those_of_epochs_and_the_others_were_waited(tmp_path: Path) -> None:
    records = TrialRecords(Storage.at(tmp_path))
    records.start(1, "a", {})
    recorder = Recorder(records, cast(Any, None), on_end=lambda record: None)
    error = tmp_path / "error.txt"
    error.write_text("ValueError: no\n")
    elapsed = {"time_total_s": 10.0}
    trial = cast(Any, SimpleNamespace(trial_id="a", last_result=elapsed, error_file=str(error)))
    # The second epoch is trained again after a loss of workers.
    for epoch, seconds in ((1, 1.5), (2, 2.0), (2, 2.5)):
        result = {"epoch": epoch, METRIC: 1.0, "seconds": seconds}
        recorder.on_trial_result(0, [], trial, result)
    recorder.on_trial_error(0, [], trial)
    ended = records.of("a")
    assert (ended.seconds, ended.waited) == (6.0, 4.0)


def recorded(storage: Path) -> list[dict[str, Any]]:
    """What is recorded of the trials of the only search there."""
    files = sorted((storage / "runs" / "tiny" / "trials").glob("*/*.json"))
    return [json.loads(file.read_text()) for file in files]


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_search_goes_on_and_repeats_no_trial_that_has_ended(
    tmp_path: Path, at_the_end: ExitStack
) -> None:
    storage = tmp_path / "artifacts"
    long = ("train.epochs=20", "train.patience=0", "tune.grace_epochs=20", "scaling.num_workers=0")
    settings = (*TINY, *long, f"storage={storage}")

    def one_has_ended_and_one_runs() -> bool:
        return [record["state"] for record in recorded(storage)] == ["finished", "running"]

    with running_module("ray_jobs.tune", settings) as killed:
        wait_until(one_has_ended_and_one_runs, 150)
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
        # Ray's agents end last: they see for themselves that their raylet is gone.
        at_the_end.callback(assert_all_end, killed.mark, 150)
    before = recorded(storage)

    done = run_module("ray_jobs.tune", settings)

    assert done.code == 0, done.out + done.err
    finished, running = before
    after = recorded(storage)
    assert [record["state"] for record in after] == ["finished"] * 3
    assert after[0] == finished
    assert after[1]["parameters"] == running["parameters"]
    assert after[1]["trial_id"] != running["trial_id"]
    assert "1 of 3 trials are done already" in done.out
    rows = pq.read_table(storage / "runs" / "tiny" / "trials.parquet").to_pylist()
    assert [row["trial_id"] for row in rows] == [record["trial_id"] for record in after]
    assert [row["epochs"] for row in rows] == [20, 20, 20]
    assert list(storage.rglob("*.part")) == []
    assert left_after(done.mark, 10) == {}


def test_no_more_trials_are_suggested_than_find_workers(tmp_path: Path) -> None:
    run, ready = Run(tmp_path, count=4), 1
    run.sampler = ResumableSampler(run.inner, SPACE, run.records, 4, lambda: ready)
    assert run.sampler.suggest("a") is not None
    assert run.sampler.suggest("b") is None
    assert [record.number for record, _ in run.records.events()] == [1]
    ready = 2
    assert run.sampler.suggest("c") is not None
    assert run.sampler.suggest("d") is None
    # Of two that run, the workers of one are lost: the next trial waits for them to come back.
    ready = 1
    run.sampler.on_trial_complete("a", {"epoch": 1, METRIC: 1.0})
    assert run.sampler.suggest("e") is None
    run.sampler.on_trial_complete("c", error=True)
    assert run.sampler.suggest("f") is not None
