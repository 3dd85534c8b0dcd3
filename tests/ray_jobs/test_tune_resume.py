"""Searches that are killed, continued and extended."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import TrialScheduler

from ingest.storage import Storage
from ncf.prepared import Prepared
from ncf.report import Report
from ray_jobs.config import with_parameters
from ray_jobs.recording import RecordedHalving, RecordedSampler
from ray_jobs.report import search_section
from ray_jobs.trials import METRIC, TrialRecord, TrialRecords
from ray_jobs.tune import open_records, search
from ray_jobs.workspace import Workspace
from tests.ray_jobs.small import IMPOSSIBLE, job
from tests.support import TINY, left_after, run_module, running_module

SPACE = {
    "train.learning_rate": tune.loguniform(1e-3, 1e-1),
    "model.embedding_dim": tune.choice([4, 8, 16]),
    "model.hidden_dims": tune.choice(["[8]", "[16, 8]"]),
}


def judged(parameters: dict[str, Any]) -> float:
    """A made-up error, lowest for a rate near 0.02 and the size 8."""
    return (
        1 + abs(parameters["train.learning_rate"] - 0.02) + (parameters["model.embedding_dim"] != 8)
    )


class Run:
    """One life of a search without Ray, whose trials start and end as it is told."""

    def __init__(self, folder: Path, count: int = 30) -> None:
        self.records = TrialRecords(Storage.at(folder))
        self.sampler = RecordedSampler(SPACE, 7, self.records, count)
        self.life = os.urandom(4).hex()

    def start(self, number: int) -> dict[str, Any]:
        """The next trial; ``number`` is the one that it should be."""
        trial_id = f"{self.life}-{number}"
        parameters = self.sampler.suggest(trial_id)
        assert self.records.of(trial_id).number == number
        return parameters

    def end(self, number: int, error: str | None = None) -> None:
        record = self.records[number]
        epochs = ({"epoch": 1, METRIC: judged(record.parameters)},)
        self.sampler.on_trial_complete(record.trial_id, epochs[0], error=bool(error))
        state = "failed" if error else "finished"
        self.records.end(record.trial_id, state=state, error=error, epochs=epochs)


def test_trials_that_follow_are_those_of_a_search_that_was_not_interrupted(tmp_path: Path) -> None:
    """Two at a time, one of them fails; beyond the first ten, where the sampler only guesses."""

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

    whole = Run(tmp_path / "whole")
    begin(whole)
    begin(Run(tmp_path / "killed"))

    continued = Run(tmp_path / "killed")
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
    made_up = {"train.learning_rate": 0.5e-1, "model.embedding_dim": 16, "model.hidden_dims": "[8]"}
    for number, parameters in enumerate([made_up, second.start(2), made_up, made_up], start=1):
        records.start(number, f"trial-{number}", parameters)
        if number < 4:
            epochs = ({"epoch": 1, METRIC: float(number)},)
            outcome = ("failed", "no memory") if number == 3 else ("finished", None)
            records.end(f"trial-{number}", state=outcome[0], error=outcome[1], epochs=epochs)

    run = Run(tmp_path / "others")
    assert run.start(4) == made_up
    run.end(4)

    study = run.sampler._ot_study
    known = [(t.params, t.value) for t in study.get_trials(states=[TrialState.COMPLETE])]
    expected = [(second.records[2].parameters, 2.0), (made_up, 1.0), (made_up, judged(made_up))]
    assert sorted(known, key=str) == sorted(expected, key=str)
    assert study.get_trials(states=[TrialState.RUNNING]) == []


def shown(scheduler: RecordedHalving, error: float) -> str:
    trial: Any = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(None, trial)
    decision = scheduler.on_trial_result(None, trial, {"epoch": 2, METRIC: error})
    assert scheduler.has_stopped(trial) is (decision == TrialScheduler.STOP)
    return decision


@pytest.mark.parametrize(
    ("error", "decision"), [(1.4, TrialScheduler.CONTINUE), (1.6, TrialScheduler.STOP)]
)
def test_a_trial_is_stopped_by_what_earlier_runs_have_found(
    error: float, decision: str, tmp_path: Path
) -> None:
    """Of 1 and 2 at the rung of the second epoch, the better half is what is below 1.5."""
    records = TrialRecords(Storage.at(tmp_path))
    for number, found in enumerate((1.0, 2.0), start=1):
        records.start(number, f"trial-{number}", {})
        epochs = ({"epoch": 1, METRIC: 9.0}, {"epoch": 2, METRIC: found})
        records.end(f"trial-{number}", state="finished", epochs=epochs)
    records.start(3, "interrupted", {})

    read = TrialRecords(Storage.at(tmp_path))
    assert shown(RecordedHalving(read, 8, 2, 2.0), error) == decision

    nothing_before = TrialRecords(Storage.at(tmp_path / "empty"))
    assert shown(RecordedHalving(nothing_before, 8, 2, 2.0), error) == TrialScheduler.CONTINUE


def test_records_are_read_as_they_were_written_and_half_a_file_is_none(tmp_path: Path) -> None:
    records = TrialRecords(Storage.at(tmp_path))
    records.start(1, "a", {"model.dropout": 0.1 + 0.2, "model.hidden_dims": "[8, 4]"})
    records.start(2, "b", {})
    epochs = ({"epoch": 1, METRIC: 2 / 3},)
    ended = records.end("a", state="stopped", epochs=epochs, best_epoch=1, seconds=0.1)
    (tmp_path / ".00002.json.1f.part").write_text('{"number": ')

    read = TrialRecords(Storage.at(tmp_path))

    parameters = {"model.dropout": 0.1 + 0.2, "model.hidden_dims": "[8, 4]"}
    assert ended == TrialRecord(1, "a", parameters, 1, 3, "stopped", None, epochs, 1, 0.1)
    assert read.ended() == [ended]
    assert [(record.number, end) for record, end in read.events()] == [
        (1, False),
        (2, False),
        (1, True),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00001.json", "00002.json"]


def small_search(storage: Path, name: str, count: int, **settings: Any) -> Workspace:
    space = {
        "train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "model.hidden_dims": {"choices": [[8, 4], [4]]},
    }
    defaults = {"num_trials": count, "max_concurrent_trials": 1, "grace_epochs": 1, "space": space}
    train = {"epochs": 3, "batch_size": 512}
    return Workspace(job(storage, name=name, train=train, tune=defaults | settings))


def table(workspace: Workspace) -> list[dict[str, Any]]:
    return pq.read_table(workspace.run.path + "/trials.parquet").to_pylist()


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
    storage: Path, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    few, more = (small_search(storage, "in-parts", count) for count in (10, 13))

    ten = search(few, prepared)
    ten_rows = table(few)
    thirteen = search(more, prepared)
    rows = table(more)
    capsys.readouterr()
    ten_again = search(few, prepared)

    assert (ten.num_trials, thirteen.num_trials) == (10, 13)
    assert rows[:10] == ten_rows
    assert [row["trial"] for row in rows] == list(range(1, 14))
    parameters = [{k: v for k, v in row.items() if k.startswith("config.")} for row in rows]
    assert parameters == suggested_by_optuna(rows)
    assert {row["state"] for row in rows} == {"finished", "stopped"}
    for row in rows:
        assert (row["epochs"] < 3) is (row["state"] == "stopped")
    assert thirteen.validation_rmse == min(row[METRIC] for row in rows)
    # All that Ray has logged belongs to these trials.
    logs = [path.parent.name for path in (storage / "runs/in-parts/ray/tune").glob("*/result.json")]
    assert sorted(name.split("_")[2] for name in logs) == sorted(row["trial_id"] for row in rows)

    assert ten_again == ten
    assert table(few) == ten_rows
    assert "10 of 10 trials are done already" in capsys.readouterr().out


def test_what_makes_another_search(storage: Path, prepared: Prepared) -> None:
    workspace = small_search(storage, "another", 3)
    open_records(workspace.config, prepared, workspace.run).start(1, "trial", {})

    def is_known(afresh: bool = False, **settings: Any) -> bool:
        config = small_search(storage, "another", 3, **settings).config
        return 1 in open_records(config, prepared, workspace.run, afresh=afresh)

    assert is_known(num_trials=9, max_concurrent_trials=2, executor="isolated")
    assert not is_known(seed=1)
    assert not is_known(grace_epochs=2)
    assert not is_known(space={"model.dropout": {"low": 0.0, "high": 0.1}})
    assert is_known()
    assert not is_known(afresh=True)
    assert not is_known()


FAILURES: dict[int, tuple[dict[str, Any], str]] = {
    2: ({"train.loss": "nll"}, 'train.loss = "nll" needs model.head = "ordinal"'),
    3: ({"train.learning_rate": 1e38}, "training diverged: the error of epoch 1 is"),
    4: ({"model.embedding_dim": IMPOSSIBLE}, "allocate"),
}


def test_a_trial_that_raises_diverges_or_asks_too_much_is_recorded_with_its_reason(
    storage: Path, prepared: Prepared
) -> None:
    """They run as interrupted trials do, which lets the test say what their parameters are."""
    workspace = Workspace(
        job(
            storage,
            name="failing",
            model={"head": "ordinal"},
            train={"epochs": 2, "batch_size": 512},
            tune={
                "num_trials": 5,
                "space": {
                    "train.loss": {"choices": ["mse", "nll"]},
                    "model.head": {"choices": ["regression", "ordinal"]},
                    "train.learning_rate": {"low": 1e-3, "high": 1e38, "log": True},
                    "model.embedding_dim": {"choices": [4, IMPOSSIBLE]},
                },
            },
        )
    )
    fine: dict[str, Any] = {
        "train.loss": "mse",
        "model.head": "regression",
        "train.learning_rate": 0.01,
        "model.embedding_dim": 4,
    }
    records = open_records(workspace.config, prepared, workspace.run)
    for number in range(1, 6):
        changes, _ = FAILURES.get(number, ({}, ""))
        records.start(number, f"interrupted-{number}", fine | changes)

    chosen = search(workspace, prepared)

    rows = {row["trial"]: row for row in table(workspace)}
    assert {number: row["state"] for number, row in rows.items()} == {
        1: "finished",
        2: "failed",
        3: "failed",
        4: "failed",
        5: "finished",
    }
    assert chosen.experiment == with_parameters(workspace.config.experiment, fine)
    section = search_section(list(rows.values()))
    report = Report("A run", (), (section,), ())
    for number, (changes, reason) in FAILURES.items():
        assert rows[number].items() >= {f"config.{k}": v for k, v in changes.items()}.items()
        assert reason in rows[number]["error"]
        assert reason in report.markdown("plots")
        assert reason in unescape(report.html())
    assert (
        "2 trained to their end, 0 stopped by ASHA because they fell behind, 3 failed"
        in (section.paragraphs[0])
    )


def recorded(storage: Path) -> list[dict[str, Any]]:
    """What is recorded of the trials of the only search there."""
    files = sorted((storage / "runs" / "tiny" / "trials").glob("*/*.json"))
    return [json.loads(file.read_text()) for file in files]


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_search_goes_on_and_repeats_no_trial_that_has_ended(tmp_path: Path) -> None:
    storage = tmp_path / "artifacts"
    long = ("train.epochs=200", "train.patience=0", "tune.grace_epochs=200", "ray.num_cpus=1")
    settings = (*TINY, *long, f"storage={storage}")

    def one_has_ended_and_one_runs() -> bool:
        return [record["state"] for record in recorded(storage)] == ["finished", "running"]

    with running_module("ray_jobs.tune", settings) as killed:
        wait_until(one_has_ended_and_one_runs, 150)
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
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
    assert [row["epochs"] for row in rows] == [200, 200, 200]
    assert list(storage.rglob("*.part")) == []
    assert left_after(done.mark, 10) == {}
    # Ray's agents look after their raylet every two seconds, and take a minute to give it up.
    assert left_after(killed.mark, 120) == {}
