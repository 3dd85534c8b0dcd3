"""What is looked at before a job starts; tests/ray_jobs/test_multi_node.py has that of nodes."""

from __future__ import annotations

import http.server
import ipaddress
import json
import re
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from foundation.cli import main
from foundation.errors import ConfigError, StorageError
from ingest.errors import DatasetError, DownloadError
from ray_jobs import doctor, pipeline
from ray_jobs.cluster import preflight
from ray_jobs.config import BlendConfig, JobConfig
from ray_jobs.errors import ClusterError
from ray_jobs.results.run import Workspace
from ray_jobs.results.trackers import reach_mlflow

V4 = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"
V3 = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMDB_ACCESS_TOKEN", "TMDB_API_KEY", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def workspace(folder: Path, **sections: Any) -> Workspace:
    values = {"storage": str(folder / "out"), "data": {"source": "synthetic"}} | sections
    return Workspace(JobConfig.model_validate(values))


def synthetic(num_ratings: int) -> dict[str, Any]:
    return {"source": "synthetic", "synthetic": {"num_ratings": num_ratings}}


def test_the_estimate_of_rows_is_that_of_the_release_or_of_the_files_size(tmp_path: Path) -> None:
    assert preflight.num_ratings(workspace(tmp_path, data={"source": "ml-1m"}).config) == 1_000_209
    own = tmp_path / "own"
    own.mkdir()
    lines = [f"{user},{100 + user},4.0,1000000000\n" for user in range(1000, 3000)]
    (own / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(lines))
    (own / "movies.csv").write_text("movieId,title,genres\n")
    data = {"source": "folder", "path": str(own)}

    found = preflight.num_ratings(workspace(tmp_path, data=data).config)

    assert found == pytest.approx(2000, rel=0.1)


def test_a_full_disk_is_refused_with_both_figures(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    free = shutil.disk_usage(tmp_path).free

    preflight.disk(workspace(tmp_path))
    with pytest.raises(StorageError, match=rf"GiB free at .*out, .* needed for {free:,} ratings"):
        preflight.disk(workspace(tmp_path, data=synthetic(free)))


def test_too_little_memory_is_told_and_does_not_stop_a_job(tmp_path: Path) -> None:
    plenty = preflight.memory(workspace(tmp_path))
    little = preflight.memory(workspace(tmp_path, data=synthetic(10**12)))

    assert not isinstance(plenty, preflight.Doubt)
    assert isinstance(little, preflight.Doubt)
    assert "1,000,000,000,000 ratings" in little
    assert preflight.finding("memory", lambda _: little, workspace(tmp_path)).state == "doubt"


def test_resident_rows_count_for_every_worker_of_this_machine(tmp_path: Path) -> None:
    def needed(**sections: Any) -> float:
        found = preflight.memory(workspace(tmp_path, data=synthetic(10**8), **sections))
        return float(found.partition("about ")[2].partition(" GiB")[0])

    # 2 GiB, and 50 bytes a row to prepare or 100 bytes a row and worker to train.
    assert needed() == pytest.approx(2 + 5e9 / 2**30, abs=0.06)
    resident = {"train": {"rows": "resident"}}
    assert needed(**resident) == pytest.approx(2 + 1e10 / 2**30, abs=0.06)
    two = resident | {"scaling": {"num_workers": 2}}
    assert needed(**two) == pytest.approx(2 + 1.3e10 / 2**30, abs=0.06)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TMDB_ACCESS_TOKEN", V4, "API Read Access Token (v4) in TMDB_ACCESS_TOKEN"),
        ("TMDB_API_KEY", V3, "API Key (v3) in TMDB_API_KEY"),
        ("HOME", "/", "none in the environment: features of TMDb are left out"),
    ],
)
def test_the_kind_of_token_is_told_and_not_the_token(
    variable: str, value: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    found = preflight.token(workspace(tmp_path, data={"source": "ml-latest-small"}))

    assert found == told


def test_a_token_in_the_wrong_variable_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMDB_ACCESS_TOKEN", V3)

    with pytest.raises(ConfigError, match="v3 API key") as caught:
        preflight.token(workspace(tmp_path, data={"source": "ml-latest-small"}))

    assert V3 not in str(caught.value)


def test_data_that_are_not_there_are_refused(tmp_path: Path) -> None:
    data = {"source": "ml-1m", "path": str(tmp_path / "nowhere")}

    with pytest.raises(DatasetError, match=r"nowhere' does not exist\. Expected .* ml-1m"):
        preflight.data(workspace(tmp_path, data=data))


def test_data_that_cannot_be_downloaded_are_found_before_the_job(tmp_path: Path) -> None:
    nowhere = {"download_url": "http://127.0.0.1:1"}
    with pytest.raises(DownloadError, match=r"cannot download .*--set data.path="):
        preflight.data(workspace(tmp_path, data={"source": "ml-latest-small", **nowhere}))
    found = preflight.data(workspace(tmp_path, data={"source": "auto", **nowhere}))
    assert isinstance(found, preflight.Doubt)
    assert "so synthetic ratings are used instead" in found
    archive = tmp_path / "out" / "raw" / "downloads" / "ml-latest-small.zip"
    archive.parent.mkdir(parents=True)
    archive.touch()
    found = preflight.data(workspace(tmp_path, data={"source": "ml-latest-small", **nowhere}))
    assert found == "ml-latest-small, downloaded before"


def test_the_probe_of_the_storage_leaves_nothing(tmp_path: Path) -> None:
    assert "writable" in preflight.storage(workspace(tmp_path))

    assert list((tmp_path / "out").iterdir()) == []


def test_other_versions_on_a_node_are_named(tmp_path: Path) -> None:
    here = preflight.versions()
    there = {"versions": here | {"torch": "2.0.0"}, "problem": None}

    with pytest.raises(ClusterError, match=rf"n1 has torch 2\.0\.0 instead of {here['torch']}\."):
        preflight._compare("n1", there, here, workspace(tmp_path).storage)


def test_mlflow_that_is_not_there_is_told_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    config = workspace(tmp_path, tune={"mlflow_uri": uri}).config

    with pytest.raises(ClusterError, match=f"cannot reach MLflow at tune.mlflow_uri = {uri}: "):
        reach_mlflow(config)

    assert reach_mlflow(workspace(tmp_path).config) == "not asked for"


def test_doctor_lists_every_finding_and_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("data.source=synthetic", f"storage={tmp_path}", "scaling.num_workers=9999")
    arguments = [part for setting in settings for part in ("--set", setting)]

    assert main(doctor.command, arguments) == 1

    told = capsys.readouterr()
    lines = {line.split()[0]: line for line in told.out.splitlines() if line.strip()}
    assert " ok " in lines["storage"]
    assert " FAILED " in lines["ray"]
    assert told.err.splitlines()[-1].endswith("fixed: ray")
    assert main(doctor.command, [*arguments[:4], "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert (found["ray"]["state"], found["ray"]["found"]) == ("ok", "a local one will be started")


def test_a_job_is_refused_before_it_reads_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"storage={tmp_path / 'out'}", "data.source=synthetic"]
    settings.append(f"data.synthetic.num_ratings={10**15}")
    arguments = [part for setting in settings for part in ("--set", setting)]

    assert main(pipeline.command, arguments) == 1

    assert "needed for 1,000,000,000,000,000 ratings" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("mode", "auth", "told"),
    [
        (0o600, "token", None),
        (0o644, "token", "other users of this machine can read .*: chmod 600 "),
        (0o600, "disabled", "every program that can connect to this Ray can run code"),
        (None, "", None),
    ],
)
def test_who_else_could_use_ray_is_told(
    mode: int | None,
    auth: str,
    told: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "auth_token"
    if mode is not None:
        file.write_text("a" * 64)
        file.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    monkeypatch.setenv("RAY_AUTH_MODE", auth)
    found = preflight.finding("access", preflight.access, workspace(tmp_path))
    assert found.state == ("ok" if told is None else "doubt")
    assert told is None or re.search(told, found.found)


class Dashboard(http.server.BaseHTTPRequestHandler):
    """Answers every request with the server's ``code``."""

    def do_GET(self) -> None:
        self.send_response(self.server.code)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.mark.parametrize(
    ("code", "state", "told"),
    [
        (None, "ok", "none of Ray's usual ports accepts connections at"),
        (401, "ok", "accept connections .*, and Ray asks for a token"),
        (200, "doubt", "does not ask for a token there: .* every program there can run code"),
    ],
)
def test_ports_that_other_machines_can_connect_to_are_named(
    code: int | None, state: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The address of a machine with a network, as tests run on machines without one too.
    monkeypatch.setattr(preflight, "_outward_address", lambda: "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Dashboard) as server:
        server.code = code  # type: ignore[attr-defined]
        port = server.server_address[1]
        monkeypatch.setattr(preflight, "_DASHBOARD", port)
        monkeypatch.setattr(preflight, "_PORTS", {port: "dashboard and jobs"})
        thread = threading.Thread(target=server.serve_forever)
        if code is None:
            server.server_close()
        else:
            thread.start()
        found = preflight.finding("ports", preflight.ports, workspace(tmp_path))
        if code is not None:
            server.shutdown()
            thread.join()
    assert found.state == state
    assert re.search(told, found.found)
    assert (f"{port} (dashboard and jobs)" in found.found) == (code is not None)


@pytest.mark.parametrize("rows", [3_000_000, 2_000])
def test_members_of_a_blend_that_cannot_be_fitted_are_refused_before_any_work(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "num_ratings", lambda _config: rows)
    config = workspace(tmp_path).config
    assert preflight.blend(Workspace(config)) == "none"
    blended = config.model_copy(update={"blend": BlendConfig(members=("boosting",))})
    if rows > 2_000_000:
        with pytest.raises(ConfigError, match=r"they take too long above 2,000,000 .* Leave them"):
            preflight.blend(Workspace(blended))
        return
    assert preflight.blend(Workspace(blended)) == "boosting"
    monkeypatch.setattr("ncf.baselines.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="lightgbm is not installed: pip install lightgbm"):
        preflight.blend(Workspace(blended))


def test_a_machine_is_known_by_an_address_that_is_not_its_own_loop() -> None:
    address = preflight._outward_address()
    assert address is None or not ipaddress.ip_address(address).is_loopback
