"""Two nodes, started as a user starts them, with a common folder, an object store, or neither.

Token authentication is left on, and the pipeline runs as a submitted job.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from ncf.data.dataset import PreparedDataset
from tests.ray_jobs.nodes import Head, head_node, worker_node
from tests.support import TINY

pytestmark = pytest.mark.ray(seconds=200)

MARK = "two-nodes"

QUICK = (
    *TINY,
    'compare.losses=["mse"]',
    "compare.seeds=[0]",
    'compare.baselines=["damped-bias"]',
    "final.refit_on_validation=false",
)

# A worker on each node: neither has two CPUs.
TWO_WORKERS = (*QUICK, "scaling.num_workers=2", "tune.num_trials=2")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, at_the_end: ExitStack) -> Iterator[Head]:
    home, elsewhere = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with (
            head_node(MARK, home, 1, at_the_end) as head,
            worker_node(head, elsewhere, 1, at_the_end),
        ):
            yield head


@pytest.fixture
def bucket() -> Iterator[tuple[str, fs.S3FileSystem]]:
    """The URI of an empty bucket of an S3 server on this machine, and a client of its own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    where = {"region": "us-east-1", "scheme": "http", "endpoint_override": f"127.0.0.1:{port}"}
    client = fs.S3FileSystem(
        access_key="test", secret_key="test", **where, allow_bucket_creation=True
    )
    client.create_dir("ratings")
    try:
        yield f"s3://ratings?{urlencode(where)}", client
    finally:
        server.stop()


@pytest.mark.timeout(600)
def test_the_pipeline_runs_as_a_submitted_job_on_two_nodes_with_an_object_store(
    nodes: Head, bucket: tuple[str, fs.S3FileSystem]
) -> None:
    uri, client = bucket

    done = submit(nodes, "ray_jobs.pipeline", (*TWO_WORKERS, f"storage={uri}"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    files = {
        i.path
        for i in client.get_file_info(fs.FileSelector("ratings", recursive=True))
        if i.is_file
    }
    assert not [path for path in files if "probe" in path or ".part" in path]
    assert "ratings/runs/tiny/report.html" in files
    with client.open_input_stream("ratings/runs/tiny/metrics.json") as stream:
        metrics = json.loads(stream.read())
    assert metrics["test"]["num_ratings"] == 400
    assert metrics["resources"]["CPU"] == 2


@pytest.mark.timeout(600)
def test_a_submitted_job_keeps_what_it_writes_to_a_relative_place(nodes: Head) -> None:
    """A job's working folder is temporary, so such a place is in the home folder."""
    done = submit(nodes, "ray_jobs.preprocess", (*QUICK, "storage=out"))

    assert done.returncode == 0, done.stdout + done.stderr
    storage = Path(nodes.environment["HOME"]) / "out"
    (prepared,) = (storage / "prepared").iterdir()
    dataset = PreparedDataset.open(fs.LocalFileSystem(), str(prepared))
    assert dataset.manifest.counts == {"train": 1400, "validation": 200, "test": 400}


def test_without_its_token_a_cluster_does_not_answer(nodes: Head) -> None:
    stranger = replace(nodes, environment=nodes.environment | {"RAY_AUTH_TOKEN": "f" * 64})

    refused = stranger.job("list")

    assert refused.returncode != 0
    assert "uthenticat" in refused.stdout + refused.stderr


def submit(nodes: Head, module: str, settings: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    changes = [part for setting in settings for part in ("--set", setting)]
    return nodes.job(
        "submit",
        *("--working-dir", ".", "--"),
        *("python", "-m", module, "--config", "configs/quickstart.toml", *changes),
    )


def test_nodes_that_do_not_share_the_storage_are_named_before_anything_is_done(
    nodes: Head, tmp_path: Path
) -> None:
    # A folder of that name exists for every process, but it is the one that its node started in.
    own = "/proc/self/cwd"
    probe = (
        "from pathlib import Path; from pyarrow import fs; from foundation.storage import Storage; "
        "from ray_jobs.cluster import preflight, session; from ray_jobs.config import JobConfig; "
        "from ray_jobs.errors import ClusterError; from ray_jobs.results.run import Workspace\n"
        f"config = JobConfig.model_validate({{'ray': {{'address': {nodes.gcs!r}}}}})\n"
        "workspace = Workspace(config)\n"
        f"workspace.__dict__['storage'] = Storage(fs.LocalFileSystem(), {own!r} + '/out')\n"
        "with session.ray_session(config):\n"
        "    try: preflight.nodes(workspace)\n"
        "    except ClusterError as error: print(error)\n"
    )

    done = nodes.run_python(probe, tmp_path)

    assert "is not the same place on every node" in done.stdout, done.stderr
    assert "s3://bucket/folder" in done.stdout
    assert not list(tmp_path.rglob("*probe*"))


def test_a_shared_folder_passes_the_same_checks(nodes: Head, tmp_path: Path) -> None:
    done = nodes.run_module("ray_jobs.doctor", "data.source=synthetic", f"storage={tmp_path}")

    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert "2 node(s), all with the driver's versions and the same storage" in told
    assert "room for 2 training run(s) with 1 CPU worker(s) each" in told
    assert list(tmp_path.iterdir()) == []


def test_more_workers_than_the_cluster_has_room_for_are_refused_at_once(
    nodes: Head, tmp_path: Path
) -> None:
    done = nodes.run_module(
        "ray_jobs.train", *TWO_WORKERS, "scaling.num_workers=3", f"storage={tmp_path}"
    )

    assert done.returncode == 1
    assert "3 workers of 1 CPU and 0.5 GiB of memory each do not fit" in done.stderr
    assert "which has room for 2" in done.stderr
    assert "Traceback" not in done.stderr


GROUPS = """
import sys
from ray_jobs.cluster.resources import GroupPlan
from ray_jobs.cluster.session import ensure_ray, leave_ray
from ray_jobs.config import JobConfig

ray = {"address": sys.argv[1]}
for tune in ({"also_on_cpus": False}, {"executor": "isolated"}, {}):
    config = JobConfig.model_validate({"ray": ray, "tune": tune})
    ensure_ray(config)
    groups = GroupPlan.of(config, for_trials=True).fitting()
    print(["GPU" if group.use_gpu else "CPU" for group in groups])
leave_ray()
"""


def test_trials_on_gpus_leave_cpus_to_others_unless_told_not_to(
    nodes: Head, tmp_path: Path
) -> None:
    """Which groups there would be; no GPU is needed to plan for one."""
    with (
        ExitStack() as until_it_has_left,
        worker_node(nodes, tmp_path, 3, until_it_has_left, num_gpus=1),
    ):
        done = nodes.run_python(GROUPS.replace("sys.argv[1]", repr(nodes.gcs)), tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    # One CPU on each of the two nodes, and two beside the GPU's.
    assert lines == [
        "['GPU']",
        "['GPU']",
        "['GPU', 'CPU', 'CPU', 'CPU', 'CPU']",
    ]
