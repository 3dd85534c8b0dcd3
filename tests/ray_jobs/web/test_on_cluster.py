"""The page on a cluster of two nodes: rolling to other models while it is asked."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from foundation.errors import ConfigError, MovieRatingsError
from ray_jobs.config import ServeConfig
from ray_jobs.errors import NoModelError
from ray_jobs.web.application import DEPLOYMENT, ServedModel, application, page
from tests.ray_jobs.made import CLOSED, IDS, kept
from tests.ray_jobs.nodes import Head, free_ports, head_node, worker_node
from tests.support import ROOT

FILE = ROOT / "deploy" / "serve.yaml"
RATED = {"ratings": [{"movieId": IDS[0], "rating": 5}], "n": 2, "minRatings": 0}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the models ``first``, ``second`` and ``damaged``."""
    made = kept(tmp_path / "made", CLOSED).paths.checkpoint.path
    for name in ("first", "second", "damaged"):
        shutil.copytree(made, tmp_path / name)
    (tmp_path / "damaged" / "fitted.json").write_text("{}")
    return tmp_path


class Requests:
    """Requests recommendations continuously, from two threads."""

    def __init__(self, url: str) -> None:
        self._request = urllib.request.Request(
            f"{url}/api/recommendations",
            json.dumps(RATED).encode(),
            {"Content-Type": "application/json"},
        )
        self.answers: Counter[object] = Counter()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def _ask(self) -> None:
        # A pace that leaves this machine room for what is being started.
        while not self._is_over.wait(0.1):
            try:
                with urllib.request.urlopen(self._request, timeout=60) as answer:
                    found = len(json.load(answer)["recommendations"])
                    self.answers[answer.status, found] += 1
            except Exception as error:
                self.answers[repr(error)] += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()


def served(url: str) -> str:
    """Name of the model that answers."""
    with urllib.request.urlopen(f"{url}/api/model", timeout=60) as answer:
        return str(json.load(answer)["name"])


@pytest.mark.ray(seconds=150)
@pytest.mark.timeout(600)
def test_another_model_takes_over_without_a_failed_request(
    models: Path, tmp_path_factory: pytest.TempPathFactory, at_the_end: ExitStack
) -> None:
    home, elsewhere = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("elsewhere")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with (
        # Room for new replicas beside those that serve.
        head_node("served", home, 2, at_the_end) as head,
        worker_node(head, elsewhere, 2, at_the_end),
    ):
        deploy = Deploy(head, models, port)
        done = deploy.by_command("first")
        assert f"serving at {url} of every node with a replica" in done
        assert served(url) == "first"
        requests = Requests(url)
        with requests.running():
            deploy.by_file("second")
            deploy.wait_for("RUNNING", 2)
            assert served(url) == "second"
            # Refused, with the reason.
            deploy.by_file("damaged")
            assert "cannot read the checkpoint" in deploy.wait_for("DEPLOY_FAILED")
            assert served(url) == "second"
        assert list(requests.answers) == [(200, 2)], requests.answers
        assert head.serve("shutdown", "--yes").returncode == 0


class Deploy:
    """Deploys models on a cluster by the command and by Serve's config file."""

    def __init__(self, head: Head, models: Path, port: int) -> None:
        self._head = head
        self._models = models
        self._port = port

    def by_command(self, name: str) -> str:
        """What the command prints."""
        settings = ('serve.replicas="1-2"', f"storage={self._models}")
        arguments = ("--port", str(self._port), "--checkpoint", str(self._models / name))
        done = self._head.run_module("ray_jobs.serve", *settings, arguments=arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def by_file(self, name: str) -> None:
        """``deploy/serve.yaml`` with this model."""
        wanted = yaml.safe_load(FILE.read_text())
        (app,) = wanted["applications"]
        app["args"]["checkpoint"] = str(self._models / name)
        file = self._models / "serve.yaml"
        file.write_text(yaml.safe_dump(wanted))
        done = self._head.serve("deploy", str(file))
        assert done.returncode == 0, done.stdout + done.stderr

    def wait_for(self, state: str, replicas: int | None = None) -> str:
        """What Serve says of the application when it has this state and number of replicas."""
        deadline, paused = time.monotonic() + 240, threading.Event()
        while time.monotonic() < deadline:
            found = self._head.get("/api/serve/applications/")["applications"]["movies"]
            deployment = found["deployments"].get(DEPLOYMENT, {})
            running = [r for r in deployment.get("replicas", ()) if r["state"] == "RUNNING"]
            if found["status"] == state and replicas in (None, len(running)):
                return str(found["message"])
            paused.wait(0.5)
        raise AssertionError(f"the application is not {state}: {found}")


# -- the application, without Ray ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "error", "told"),
    [
        ({}, ConfigError, "checkpoint"),
        ({"checkpont": "x"}, ConfigError, "checkpont.*Did you mean.*checkpoint"),
        ({"checkpoint": "nowhere"}, NoModelError, "there is no folder .*nowhere"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    args: dict[str, str], error: type[MovieRatingsError], told: str
) -> None:
    with pytest.raises(error, match=told):
        application(args)


def test_a_damaged_model_is_refused_before_a_replica_makes_room_for_it(models: Path) -> None:
    application({"checkpoint": str(models / "first")})
    with pytest.raises(MovieRatingsError, match="cannot read the checkpoint"):
        application({"checkpoint": str(models / "damaged")})


def test_a_range_of_replicas_is_scaled_within(models: Path) -> None:
    model = ServedModel(checkpoint=str(models / "first"))
    for replicas, expected in ((3, (3, 3)), ("2-5", (2, 5))):
        config = ServeConfig(replicas=replicas)
        deployment = page(model, config)._bound_deployment
        scaling = deployment._deployment_config.autoscaling_config
        assert (scaling.min_replicas, scaling.max_replicas) == expected


def test_the_config_files_are_serves_and_the_same() -> None:
    told = yaml.safe_load(FILE.read_text())
    service = yaml.safe_load((ROOT / "deploy" / "rayservice.yaml").read_text())["spec"]
    (app,) = ServeDeploySchema.model_validate(told).applications
    assert app.import_path == f"{application.__module__}:{application.__name__}"
    ServedModel.model_validate(app.args)
    assert [deployment.name for deployment in app.deployments] == [DEPLOYMENT]
    assert yaml.safe_load(service["serveConfigV2"]) == told
