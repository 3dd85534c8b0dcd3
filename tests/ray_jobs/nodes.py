"""Ray nodes as a user starts them, with token authentication left on."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.support import (
    ROOT,
    Done,
    Running,
    assert_all_end,
    environment,
    run_module,
    running,
)

RAY = str(Path(sys.executable).with_name("ray"))
SERVE = str(Path(sys.executable).with_name("serve"))


@dataclass(frozen=True)
class Head:
    """A running head node and the environment in which to talk to it."""

    address: str
    """Of the dashboard, for ``ray job``."""
    gcs: str
    """For drivers and other nodes."""
    environment: dict[str, str]
    mark: str
    """Which all its processes inherit."""

    def job(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``ray job <verb>`` in the repository's folder."""
        return self._run(RAY, "job", verb, "--address", self.address, *arguments)

    def run_module(
        self, module: str, *settings: str, arguments: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """``python -m <module> --set ... <arguments>`` as a driver on this cluster."""
        changes = [part for s in (f"ray.address={self.gcs}", *settings) for part in ("--set", s)]
        return self._run(sys.executable, "-m", module, *changes, *arguments)

    def get(self, path: str) -> Any:
        """What the dashboard answers, from JSON."""
        token = Path(self.environment["HOME"], ".ray", "auth_token").read_text().strip()
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def serve(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``serve <verb>`` in the repository's folder."""
        return self._run(SERVE, verb, "--address", self.address, *arguments)

    @contextmanager
    def running_module(self, module: str, *settings: str) -> Iterator[Running]:
        """The same, while it runs."""
        with running(self.environment, module, (f"ray.address={self.gcs}", *settings)) as process:
            yield Running(process, self.mark)

    def run_python(self, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """``python -c <code>`` in ``folder``, with this project to be imported."""
        return self._run(sys.executable, "-c", code, folder=folder)

    def _run(self, *command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=folder,
            env=self.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=450,
            check=False,
        )


def run_with_own_cluster(module: str, storage: Path) -> Done:
    """``python -m <module> <storage>``, which starts a cluster; nothing of it may be left."""
    # Files of its own: Ray notes there which cluster was started last on this machine.
    with tempfile.TemporaryDirectory(prefix="ray-") as temporary:
        variables = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "a" * 64,
            "RAY_TMPDIR": temporary,
        }
        done = run_module(module, (), str(storage), variables=variables)
        assert_all_end(done.mark, 60)
    assert done.code == 0, done.out + done.err
    return done


def free_ports(count: int) -> list[int]:
    """Ports at which no process listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]


@contextmanager
def head_node(
    mark: str, home: Path, num_cpus: int, at_the_end: ExitStack, max_nodes: int = 0
) -> Iterator[Head]:
    """A head node with a token of its own in ``home``; its processes inherit ``mark``.

    It needs half a minute to stop, and ``at_the_end`` checks that nothing of the cluster is left.
    With ``max_nodes`` its autoscaler starts so many nodes with a CPU each, on this machine.
    """
    temporary = at_the_end.enter_context(tempfile.TemporaryDirectory(prefix="ray-"))
    at_the_end.callback(assert_all_end, mark, 60)
    variables = environment(mark) | {
        "HOME": str(home),  # so that the token is neither found nor left in the user's home
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        # Ray notes there which cluster was started last on this machine, and looks for it.
        "RAY_TMPDIR": temporary,
        # Notice within seconds that a node has died.
        "RAY_health_check_period_ms": "1000",
    }
    subprocess.run(
        [RAY, "get-auth-token", "--generate"], env=variables, check=True, capture_output=True
    )
    port, dashboard, agent, client = free_ports(4)
    autoscaling = []
    if max_nodes:
        file = home / "autoscaler.json"
        file.write_text(json.dumps(_autoscaler(f"127.0.0.1:{port}", max_nodes)))
        autoscaling = [f"--autoscaling-config={file}"]
        variables |= {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
    with _node(
        variables,
        ROOT,
        at_the_end,
        "--head",
        f"--num-cpus={num_cpus}",
        f"--port={port}",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}",
        *autoscaling,
    ):
        yield Head(
            f"http://127.0.0.1:{dashboard}",
            f"127.0.0.1:{port}",
            variables | {"RAY_AUTH_MODE": "token"},
            mark,
        )


def _autoscaler(gcs: str, max_nodes: int) -> dict[str, Any]:
    """Configuration of an autoscaler whose nodes are processes of this machine, as that of
    ``ray.cluster_utils.AutoscalingCluster``, which would first stop every Ray of this machine."""
    head, worker = "ray.head.default", "worker"
    return {
        "cluster_name": "fake_multinode",
        "max_workers": max_nodes,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": 0.25,
        "provider": {
            # By its module: that of its name needs a file which Ray's wheel lacks.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": gcs,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            head: {"resources": {}, "node_config": {}, "max_workers": 0},
            worker: {
                "resources": {"CPU": 1, "object_store_memory": 10**8},
                "node_config": {},
                "min_workers": 0,
                "max_workers": max_nodes,
            },
        },
        "head_node_type": head,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@contextmanager
def worker_node(
    head: Head,
    folder: Path,
    num_cpus: int,
    at_the_end: ExitStack,
    num_gpus: int = 0,
) -> Iterator[None]:
    """Another node of the cluster, whose processes start in ``folder``; it says what it has.

    It has temporary files of its own, as if it were another machine: else the one deletes a job's
    files when its own processes have ended, and the other still needs them.
    """
    (agent,) = free_ports(1)
    # Processes of the node may end a little later, when the head has.
    folders = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    temporary = at_the_end.enter_context(folders)
    with _node(
        head.environment,
        folder,
        at_the_end,
        f"--temp-dir={temporary}",
        f"--address={head.gcs}",
        f"--num-cpus={num_cpus}",
        f"--num-gpus={num_gpus}",
        f"--dashboard-agent-listen-port={agent}",
    ):
        yield


@contextmanager
def _node(
    variables: dict[str, str], folder: Path, at_the_end: ExitStack, *options: str
) -> Iterator[None]:
    process = subprocess.Popen(
        [RAY, "start", "--block", "--disable-usage-stats", *options],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        started = any("Ray runtime started" in line for line in process.stdout)
        assert started, "ray start ended before the runtime was up"
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        at_the_end.callback(process.communicate, timeout=60)
