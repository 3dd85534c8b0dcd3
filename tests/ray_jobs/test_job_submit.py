"""``ray start --head`` and ``ray job submit`` for real, with token authentication left on."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import ROOT, TINY, environment, left_after

RAY = str(Path(sys.executable).with_name("ray"))
MARK = "ray-job-submit"


@dataclass(frozen=True)
class Head:
    """A running head node and the environment in which to talk to it."""

    address: str
    environment: dict[str, str]

    def job(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``ray job <verb>`` in the repository's folder."""
        return subprocess.run(
            [RAY, "job", verb, "--address", self.address, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    ports = dict(
        zip(
            ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port"),
            free_ports(4),
            strict=True,
        )
    )
    variables = environment(MARK) | {
        "HOME": str(tmp_path),  # so that the token is neither found nor left in the user's home
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }
    subprocess.run(
        [RAY, "get-auth-token", "--generate"], env=variables, check=True, capture_output=True
    )
    process = subprocess.Popen(
        [
            RAY,
            *("start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
            *(f"--{name}={port}" for name, port in ports.items()),
        ],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        started = any("Ray runtime started" in line for line in process.stdout)
        assert started, "ray start ended before the runtime was up"
        client = variables | {"RAY_AUTH_MODE": "token"}
        yield Head(f"http://127.0.0.1:{ports['dashboard-port']}", client)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.timeout(600)
def test_the_pipeline_runs_as_a_submitted_job(head: Head, tmp_path: Path) -> None:
    # A relative place: a job's working folder is temporary, so it must end up in the home folder.
    storage = tmp_path / "out"
    settings = [part for s in (*TINY, "storage=out") for part in ("--set", s)]

    done = head.job(
        "submit",
        *("--working-dir", ".", "--"),
        *("python", "-m", "ray_jobs.pipeline", "--config", "configs/quickstart.toml", *settings),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    metrics = json.loads((storage / "runs" / "tiny" / "metrics.json").read_text())
    assert metrics["test"]["num_ratings"] == 400
    assert (storage / "runs" / "tiny" / "report.html").exists()

    # Without the token the cluster must not answer: authentication was really on.
    stranger = Head(head.address, head.environment | {"RAY_AUTH_TOKEN": "f" * 64})
    refused = stranger.job("list")
    assert refused.returncode != 0
    assert "uthenticat" in refused.stdout + refused.stderr


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert left_after(MARK, 30) == {}
