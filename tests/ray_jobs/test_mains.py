"""Mistakes of the user: an exit code and one message, never a stack trace."""

from __future__ import annotations

import importlib
import re
import socket
from pathlib import Path

import pytest

from foundation.cli import main
from foundation.lock import RUN_LOCK_FILE, locked
from foundation.storage import Storage
from ray_jobs import pipeline, recommend
from ray_jobs.cli import job
from ray_jobs.redo import Redo

MODULES = ("preprocess", "tune", "compare", "train", "recommend", "pipeline")

MOVIES = "movieId,title,genres\n1,Toy Story (1995),Comedy\n2,Heat (1995),Action\n"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMDB_ACCESS_TOKEN", raising=False)
    monkeypatch.delenv("TMDB_API_KEY", raising=False)


def run(*overrides: str) -> int:
    arguments = [part for override in overrides for part in ("--set", override)]
    return main(pipeline.command, arguments)


def own_data(folder: Path, ratings: str) -> list[str]:
    data = folder / "data"
    data.mkdir()
    (data / "ratings.csv").write_text(ratings)
    (data / "movies.csv").write_text(MOVIES)
    return ["data.source=folder", f"data.path={data}", f"storage={folder / 'out'}"]


def test_an_unknown_key_ends_with_2_and_lists_the_valid_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("model.layers=3") == 2

    told = capsys.readouterr().err
    assert "unknown key 'model.layers'" in told
    assert "dropout, embedding_dim, embedding_std" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("ratings", "told"),
    [
        ("userId,movieId,timestamp\n1,1,5\n", "rating"),
        ("userId,movieId,rating,timestamp\n1,1,9.5,5\n", "9.5"),
        ("userId,movieId,rating,timestamp\n1,1,good,5\n", "good"),
        ("userId,movieId,rating,timestamp\n1,1,4.0,5\n1,1,3.0,6\n", "movie 1"),
        ("userId,movieId,rating,timestamp\n", "holds no rating"),
    ],
    ids=["missing column", "out of range", "not a number", "duplicate", "empty"],
)
def test_bad_ratings_end_with_1_and_say_what_was_found(
    ratings: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*own_data(tmp_path, ratings)) == 1

    message = capsys.readouterr().err
    assert "ratings.csv" in message
    assert told in message
    assert "Traceback" not in message


def test_an_unwritable_output_folder_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")

    assert run("data.source=synthetic", f"storage={blocked}") == 1

    assert "--set storage=" in capsys.readouterr().err


def test_more_workers_than_cpus_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("data.source=synthetic", f"storage={tmp_path}", "ray.num_cpus=2")

    assert run(*settings, "scaling.num_workers=3") == 1

    message = capsys.readouterr().err
    assert "need 3 CPUs, and a local Ray has 2 here" in message
    assert not (tmp_path / "raw").exists()


def test_a_cluster_that_is_not_there_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        for wrong in (address, "local-host:x"):
            settings = ("data.source=synthetic", f"storage={tmp_path}", f"ray.address={wrong}")
            assert run(*settings) == 1
            assert f"cannot reach the Ray cluster at {wrong}" in capsys.readouterr().err


def test_usage_errors_end_with_2() -> None:
    assert main(pipeline.command, ["--nonsense"]) == 2


def test_an_interrupt_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    @job("job", "Wait.")
    def command(config: object, redo: Redo) -> None:
        raise KeyboardInterrupt

    assert main(command, []) == 130
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (None, "there is no file"),
        ("movieId,stars\n1,5\n", "line 1: the columns rating are missing"),
        ("movieId,rating\n1,5\n6,six\n", "line 3: rating is 'six', expected a number of stars"),
        ("title,rating\nHeat,good\n", "line 2: rating is 'good', expected a number of stars"),
        ("title,rating\n", "holds no rating"),
    ],
)
def test_ratings_of_somebody_new_are_read_before_anything_is_done(
    own: str | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if own is not None:
        (tmp_path / "own.csv").write_text(own)
    settings = ["--set", f"storage={tmp_path / 'out'}", "--set", "data.source=synthetic"]
    arguments = [*settings, "--new-user", str(tmp_path / "own.csv")]

    assert main(recommend.command, arguments) == 1

    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_processes_do_not_write_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--set", f"storage={tmp_path}", "--set", "name=taken")
    with locked(Storage.at(tmp_path / "runs" / "taken"), RUN_LOCK_FILE):
        for module in ("preprocess", "tune", "compare", "train", "pipeline"):
            command = importlib.import_module(f"ray_jobs.{module}").command
            assert main(command, settings) == 1
            said = capsys.readouterr().err
            assert re.search(r"process \d+ on \S+ is writing \S*runs/taken\. Wait", said)
            assert "--set name=" in said
