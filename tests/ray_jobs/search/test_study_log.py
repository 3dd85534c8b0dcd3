"""The study of a search as an Optuna journal."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from foundation.storage import Storage
from ray_jobs.config import Dimension
from ray_jobs.search.study_log import StudyLog, study_log
from ray_jobs.search.trials import TrialRecords
from tests.ray_jobs.nodes import free_ports

SPACE = {
    "train.learning_rate": Dimension(low=1e-3, high=1e-1, log=True),
    "model.hidden_dims": Dimension(choices=((8,), (16, 8))),
}
METRIC = "best_validation_rmse"


class Trial:
    """What a callback looks at of Ray Tune's trials."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"id-{number}"


class Search:
    """A search without Ray, whose trials start, report and end as it is told."""

    def __init__(self, folder: Path) -> None:
        self.records = TrialRecords(Storage.at(folder / "records"))
        self.file = folder / "study.journal"
        self.log = StudyLog(self.file, "tune", SPACE, self.records)

    def start(self, number: int) -> None:
        parameters = {"train.learning_rate": number / 100, "model.hidden_dims": (16, 8)}
        self.records.start(number, f"id-{number}", parameters)
        self.log.on_trial_start(0, [], cast(Any, Trial(number)))

    def report(self, number: int, *errors: float) -> None:
        for epoch, error in enumerate(errors, start=1):
            result = {"epoch": epoch, METRIC: error}
            self.log.on_trial_result(0, [], cast(Any, Trial(number)), result)

    def end(self, number: int, state: str, *errors: float, why: str | None = None) -> None:
        epochs = tuple({"epoch": e, METRIC: error} for e, error in enumerate(errors, start=1))
        self.log.ended(self.records.end(f"id-{number}", state=state, error=why, epochs=epochs))

    def run(self) -> None:
        """Four trials, one of which is still running."""
        for number in (1, 2, 3, 4):
            self.start(number)
        self.report(1, 0.9, 0.8)
        self.report(2, 1.5)
        self.report(4, 0.7)
        self.end(1, "finished", 0.9, 0.8)
        self.end(2, "stopped", 1.5)
        self.end(3, "failed", why="no memory")


def study(file: Path) -> optuna.Study:
    """As any program reads it."""
    return optuna.load_study(
        study_name="tune", storage=JournalStorage(JournalFileBackend(str(file)))
    )


def told(file: Path) -> list[tuple[Any, ...]]:
    return [
        (t.user_attrs["trial"], t.state, t.values, t.intermediate_values, t.user_attrs.get("error"))
        for t in study(file).get_trials()
    ]


ENDED = [
    (1, TrialState.COMPLETE, [0.8], {1: 0.9, 2: 0.8}, None),
    (2, TrialState.PRUNED, [1.5], {1: 1.5}, None),
    (3, TrialState.FAIL, None, {}, "no memory"),
]
RUNNING = (4, TrialState.RUNNING, None, {1: 0.7}, None)


def test_it_tells_while_the_search_runs_what_each_trial_came_to(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run()
    assert told(search.file) == [*ENDED, RUNNING]
    best = study(search.file).best_trial
    assert best.params == {"train.learning_rate": 0.01, "model.hidden_dims": "[16, 8]"}
    assert study(search.file).direction.name == "MINIMIZE"


def test_a_search_that_goes_on_writes_it_anew_from_its_records(tmp_path: Path) -> None:
    Search(tmp_path).run()
    search = Search(tmp_path)  # trial 4 was interrupted
    assert told(search.file) == ENDED
    search.start(4)
    search.report(4, 0.6)
    assert told(search.file) == [*ENDED, (4, TrialState.RUNNING, None, {1: 0.6}, None)]


def test_ray_tune_may_store_it(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.start(1)
    copy = pickle.loads(pickle.dumps(search.log))
    copy.on_trial_result(0, [], cast(Any, Trial(1)), {"epoch": 1, METRIC: 1.0})
    assert told(search.file)[0][3] == {}


def test_a_study_that_cannot_be_written_ends_no_search(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "file").write_text("")
    records = TrialRecords(Storage.at(tmp_path / "records"))
    records.start(1, "id-1", {"train.learning_rate": 0.01, "model.hidden_dims": (8,)})
    with study_log(Storage.at(tmp_path / "file" / "study"), "tune", SPACE, records) as log:
        log.on_trial_start(0, [], cast(Any, Trial(1)))
        log.ended(records.end("id-1", state="failed", error="no memory"))
    assert "the study could not be written to" in caplog.text


@pytest.mark.system
def test_optuna_dashboard_shows_it(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run()
    (port,) = free_ports(1)
    program = Path(sys.executable).with_name("optuna-dashboard")
    with subprocess.Popen(
        [program, "--host", "127.0.0.1", "--port", str(port), str(search.file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            (summary,) = answer(port, "/api/studies")["study_summaries"]
            assert summary["study_name"] == "tune"
            trials = answer(port, f"/api/studies/{summary['study_id']}")["trials"]
        finally:
            server.terminate()
    assert [trial["state"] for trial in trials] == ["Complete", "Pruned", "Fail", "Running"]
    assert trials[0]["values"] == [0.8]
    assert {each["name"]: each["param_external_value"] for each in trials[1]["params"]} == {
        "train.learning_rate": "0.02",
        "model.hidden_dims": "[16, 8]",
    }


def answer(port: int, path: str) -> dict[str, Any]:
    """Of the server, which may be starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
                found: dict[str, Any] = json.load(response)
                return found
        except URLError:
            assert time.monotonic() < deadline
