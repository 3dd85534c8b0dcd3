from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.__main__ import main
from ingest.tmdb.client import MAX_BODY

ENVIRON = {"TMDB_ACCESS_TOKEN": "token"}


class Cli:
    """Calls the command line in this process."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys

    def __call__(
        self, *options: str, code: int = 0, environ: dict[str, str] | None = None
    ) -> tuple[str, str]:
        found = main([*options, "--storage", str(self.root)], environ or {})
        printed = self._capsys.readouterr()
        assert found == code, printed
        return printed.out, printed.err


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(tmp_path / "artifacts", capsys)


@pytest.fixture
def own(dataset: Any) -> str:
    return f"data.path={dataset((1, '0000001', 100), (2, '0000002', 200))}"


@pytest.mark.parametrize("command", [[], ["movielens"], ["tmdb"], ["synthetic"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("TMDB_ACCESS_TOKEN", "exit codes", "--set" if command else "movielens"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("options", [[], ["unknown"], ["tmdb", "--limit", "0"], ["tmdb", "--no"]])
def test_bad_usage(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 2
    assert "usage:" in capsys.readouterr().err


def test_movielens(cli: Cli, own: str) -> None:
    out, said = cli("movielens", "--set", own)
    assert "ratings    2 by 1 users" in out
    assert "own: 2 ratings by 1 users of 2 movies" in said
    values = json.loads(cli("movielens", "--set", own, "--json")[0])
    assert (values["dataset"], values["ratings"], values["movies"]) == ("own", 2, 2)


def test_quiet_leaves_out_progress(cli: Cli, own: str, tmp_path: Path) -> None:
    out, said = cli("movielens", "--set", own, "--quiet", "--force", "--json")
    assert (json.loads(out)["dataset"], said) == ("own", "")


def test_synthetic(cli: Cli) -> None:
    settings = ("--set", "data.synthetic.num_ratings=2000", "--set", "data.source=ml-25m")
    values = json.loads(cli("synthetic", *settings, "--json")[0])
    assert (values["synthetic"], values["ratings"]) == (True, 2000)
    assert values["crawl"]["ok"] == values["tmdb"]["ok"] > 400


def test_tmdb(cli: Cli, own: str, fake_tmdb: Any) -> None:
    fake_tmdb.movies = {100: {"id": 100}}
    url = f"tmdb.base_url={fake_tmdb.url}"
    options = ("tmdb", "--set", own, "--set", url)
    out, said = cli(*options, environ=ENVIRON)
    assert "TMDb       1 ok, 1 missing, 0 failed" in out
    assert "1 records fetched, 1 missing, 0 failed" in said
    values = json.loads(cli(*options, "--json", environ=ENVIRON)[0])
    assert values["crawl"] is None
    fake_tmdb.requests.clear()
    cli(*options, "--force", environ=ENVIRON)
    assert "movie/100" in fake_tmdb.requests


def test_failed_records_are_a_failure(cli: Cli, own: str, fake_tmdb: Any) -> None:
    fake_tmdb.movies = {100: {"id": 100}, 200: {"id": 200, "pad": "x" * MAX_BODY}}
    options = ("--set", own, "--set", f"tmdb.base_url={fake_tmdb.url}")
    out, _ = cli("tmdb", *options, code=1, environ=ENVIRON)
    assert "more than 4 MB" in out
    values = json.loads(cli("tmdb", *options, "--json", code=1, environ=ENVIRON)[0])
    assert list(values["failures"]) == ["2"]
    assert values["failures"]["2"].endswith("movie/200: HTTP 200 with more than 4 MB")


def test_dry_run_sends_no_request_and_writes_nothing(cli: Cli, own: str, fake_tmdb: Any) -> None:
    options = ("--set", own, "--set", f"tmdb.base_url={fake_tmdb.url}", "--dry-run")
    assert "tables     absent" in cli("tmdb", *options)[0]
    assert not cli.root.exists()
    cli("movielens", "--set", own)
    values = json.loads(cli("tmdb", *options, "--json")[0])
    assert values["tmdb"]["to_fetch"] == 2
    assert fake_tmdb.requests == []
    assert "ml-latest-small" in cli("movielens", "--dry-run")[0]


def test_purge(cli: Cli, own: str, fake_tmdb: Any) -> None:
    fake_tmdb.movies = {100: {"id": 100}, 200: {"id": 200}}
    options = ("--set", own, "--set", f"tmdb.base_url={fake_tmdb.url}")
    cli("tmdb", *options, environ=ENVIRON)
    assert "own: 1 files of TMDb records would be removed" in cli("tmdb", "--purge", "--dry-run")[0]
    assert "own: 1 files of TMDb records removed" in cli("tmdb", "--purge")[0]
    assert not list(cli.root.rglob("tmdb*"))
    assert (cli.root / "raw" / "own" / "ratings.parquet").exists()
    assert "no TMDb records" in cli("tmdb", "--purge")[0]
    assert json.loads(cli("movielens", "--set", own, "--json")[0])["tmdb"] == {}


@pytest.mark.parametrize(
    ("options", "environ", "message"),
    [
        (["tmdb"], {}, "there is no TMDb token in the environment"),
        (["tmdb"], {"TMDB_ACCESS_TOKEN": "0" * 32}, "looks like a v3 API key"),
        (["movielens", "--set", "data.sorce=x"], {}, "Did you mean 'source'? Valid keys of [data]"),
        (["movielens", "--set", "model.dim=8"], {}, "has no section 'model'. Valid: data, storage"),
        (["movielens", "--set", "data.source=folder"], {}, 'source = "folder" needs data.path'),
        (["movielens", "--set", "data.source=ml-5m"], {}, "data.source = 'ml-5m'"),
        (["movielens", "--set", "nonsense"], {}, "has no section 'nonsense'"),
        (["movielens", "--set", "data"], {}, "not of the form section.key=value"),
        (["movielens", "--config", "nowhere.toml"], {}, "cannot read the configuration"),
        (["synthetic", "--set", "data.synthetic.num_users=1"], {}, "data.synthetic.num_users = 1"),
        (
            ["synthetic", "--set", "data.synthetic.num_ratings=1000000"],
            {},
            "more than the 150000 pairs",
        ),
    ],
)
def test_wrong_configuration(
    cli: Cli, options: list[str], environ: dict[str, str], message: str
) -> None:
    assert message in cli(*options, code=2, environ=environ)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "data.path=nowhere"], "'nowhere' does not exist"),
        (
            ["--set", "data.source=ml-25m", "--set", "data.download_url=http://127.0.0.1:1"],
            "cannot download http://127.0.0.1:1/ml-25m.zip",
        ),
    ],
)
def test_failures(cli: Cli, options: list[str], message: str) -> None:
    assert message in cli("movielens", *options, code=1)[1]


def test_sections_of_the_training_jobs_are_ignored(cli: Cli, own: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    path = own.partition("=")[2]
    config.write_text(f'seed = 1\n[data]\npath = "{path}"\n[model]\ndimension = 8\n')
    assert "ratings    2 by 1 users" in cli("movielens", "--config", str(config))[0]


def test_as_a_process_a_mistake_shows_no_stack_trace(spawn: Any, tmp_path: Path) -> None:
    process = spawn("movielens", "--set", "data.path=nowhere", "--storage", str(tmp_path))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("ingest: data.path = 'nowhere' does not exist.")
    assert "Traceback" not in err
