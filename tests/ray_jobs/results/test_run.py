from __future__ import annotations

from pathlib import Path

import pytest

from foundation.errors import ConfigError, StorageError
from ingest.config import DataConfig
from ray_jobs.config import JobConfig
from ray_jobs.redo import Redo
from ray_jobs.results.run import Workspace
from ray_jobs.results.stage import Stage, fingerprint
from ray_jobs.stages.preparation import ingest


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(JobConfig(storage=str(tmp_path), name="run"))


class Work:
    """Writes its output and counts how often."""

    def __init__(self, workspace: Workspace) -> None:
        self.output = workspace.run / "result.txt"
        self.times = 0

    def __call__(self, inputs: str) -> None:
        self.times += 1
        self.output.write_text(str(self.times))


def test_a_stage_is_done_once_for_the_same_key(workspace: Workspace) -> None:
    work = Work(workspace)

    for _ in range(2):
        workspace.update(Stage("stage", "key", (work.output,), work))

    assert work.times == 1


def test_another_key_or_a_lost_output_or_force_does_it_again(workspace: Workspace) -> None:
    work = Work(workspace)
    workspace.update(Stage("stage", "key", (work.output,), work))

    workspace.update(Stage("stage", "other key", (work.output,), work))
    assert work.times == 2

    work.output.delete()
    workspace.update(Stage("stage", "other key", (work.output,), work))
    assert work.times == 3

    Workspace(workspace.config, redo=Redo(all_stages=True)).update(
        Stage("stage", "other key", (work.output,), work)
    )
    assert work.times == 4


def test_an_interrupted_stage_is_done_again(workspace: Workspace) -> None:
    work = Work(workspace)
    workspace.update(Stage("stage", "key", (work.output,), work))

    def interrupted(inputs: str) -> None:
        work(inputs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.update(Stage("stage", "new key", (work.output,), interrupted))
    workspace.update(Stage("stage", "key", (work.output,), work))

    assert work.times == 3


def test_fingerprints_depend_on_content_and_not_on_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_a_job_keeps_relative_outputs_out_of_its_temporary_folder(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert Workspace(JobConfig()).storage.path == str(tmp_path / "home" / "artifacts")
    assert workspace.storage.path == str(tmp_path)


def test_an_unwritable_storage_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StorageError, match="cannot create the folder"):
        Workspace(JobConfig(storage=str(tmp_path / "file"))).open()


def test_the_time_of_a_stage_is_that_of_the_work_for_its_key(tmp_path: Path) -> None:
    workspace = Workspace(JobConfig(storage=str(tmp_path)))
    assert workspace.seconds("ingest") is None
    workspace.took("ingest", "a", 12.0)
    workspace.took("ingest", "a", 0.1)  # there was nothing left to do
    assert workspace.seconds("ingest") == 12.0
    workspace.took("ingest", "b", 3.0)
    assert workspace.seconds("ingest") == 3.0


SYNTHETIC = DataConfig(source="synthetic")


@pytest.mark.parametrize("file", ["metrics.json", "choice_metrics.json", "dataset.json"])
def test_results_of_another_data_set_are_not_replaced(file: str, tmp_path: Path) -> None:
    config = JobConfig(storage=str(tmp_path), name="mine", data=SYNTHETIC)
    workspace = Workspace(config)
    workspace.run.make_folder()
    (workspace.run / file).write_json({"dataset": "ml-latest-small"})
    told = "the run 'mine' has results of ml-latest-small, which this .* by those of synthetic"
    with pytest.raises(ConfigError, match=told):
        workspace.open()
    assert not workspace.paths.config.exists()
    with pytest.raises(ConfigError, match=told):  # where only the network told what there is
        ingest(Workspace(JobConfig(storage=str(tmp_path), name="mine", data=SYNTHETIC)))
    Workspace(config, Redo(other_data=True)).open()
    (workspace.run / file).write_json({"dataset": "synthetic"})
    workspace.open()
    assert workspace.paths.config.exists()
