"""Checks before a job starts: data, credentials, storage, disk, memory and the cluster.

A check returns what it found, or raises an error that says what to change; a ``Doubt`` is shown and
does not stop the job. So a job that cannot run fails within seconds instead of waiting for
resources that never come or failing after an hour.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from foundation.errors import ConfigError, MovieRatingsError, StorageError
from foundation.lock import RUN_LOCK_FILE, locked
from foundation.storage import Storage
from ingest.dataset import credentials_for
from ingest.errors import DownloadError
from ingest.registry import AUTO
from ingest.sources.download import archive_url, check_reachable
from ingest.sources.selection import name_of, needs_network, selected_class
from ingest.tmdb.credentials import Credentials
from ncf.baselines import available
from ncf.data.placement import BYTES_OF_SHARED_ROW, BYTES_OF_TRAINING_ROW, free_on_machine
from ncf.registry import BASELINES, STACKED_MEMBERS
from ray_jobs.cluster.ray_internals import draining_nodes
from ray_jobs.cluster.resources import GIB, GroupPlan
from ray_jobs.cluster.session import joins_cluster, ray_session
from ray_jobs.cluster.waiting import Waiting
from ray_jobs.config import JobConfig
from ray_jobs.errors import ClusterError
from ray_jobs.results.run import Workspace
from ray_jobs.results.trackers import reach_mlflow

logger = logging.getLogger(__name__)


_BYTES_ON_DISK: Final = 64
"""Of a rating, as raw and as prepared Parquet: docs/performance.md, "Size"."""
_DISK_BESIDE: Final = GIB // 2
"""Ray's logs, models and reports."""
_BYTES_IN_MEMORY: Final = 50
"""Of a rating while it is prepared; same source."""
_MEMORY_BESIDE: Final = 2 * GIB
"""Ray's processes; same source."""
_SECONDS_BETWEEN_LOOKS: Final = 2.0
"""While nodes start a worker that answers."""

_SAME_EVERYWHERE: Final = ("ray", "torch", "numpy", "pyarrow")
"""Packages whose objects travel between driver and workers."""

_DASHBOARD: Final = 8265
_PORTS: Final = {6379: "GCS", _DASHBOARD: "dashboard and jobs", 10001: "Ray Client"}
"""Where a Ray that `ray start --head` started listens."""

Check = Callable[[Workspace], str]


class Doubt(str):
    """A finding that may cause trouble."""

    __slots__ = ()


@dataclass(frozen=True)
class Finding:
    """The outcome of a check."""

    name: str
    state: Literal["ok", "doubt", "failed"]
    found: str


@contextlib.contextmanager
def job(workspace: Workspace) -> Iterator[None]:
    """Run all checks, then open the run's folder and connect to Ray. No other process can write the
    run meanwhile.

    Raises:
        MovieRatingsError: saying what must be changed, if it cannot.
        LockedError: if another process writes the run.
    """
    _make(HERE, workspace)
    with locked(workspace.run, RUN_LOCK_FILE, waits=True), ray_session(workspace.config):
        workspace.open()
        if joins_cluster(workspace.config):
            _make(ON_CLUSTER, workspace)
        yield


def _make(checks: Mapping[str, Check], workspace: Workspace) -> None:
    for check in checks.values():
        message = check(workspace)
        if isinstance(message, Doubt):
            logger.info(f"   NOTE: {message}")


def examine(workspace: Workspace) -> Iterator[Finding]:
    """Run every check, also after one has failed."""
    failed = set()
    for name, check in HERE.items():
        if "data" in failed and name in _AFTER_DATA:
            continue
        found = finding(name, check, workspace)
        failed |= {name} if found.state == "failed" else set()
        yield found
    with contextlib.ExitStack() as stack:

        def joined(workspace: Workspace) -> str:
            stack.enter_context(ray_session(workspace.config))
            return "joined" if joins_cluster(workspace.config) else "a local one will be started"

        ray_found = finding("ray", joined, workspace)
        yield ray_found
        if ray_found.state == "ok" and joins_cluster(workspace.config):
            for name, check in ON_CLUSTER.items():
                yield finding(name, check, workspace)


def finding(name: str, check: Check, workspace: Workspace) -> Finding:
    """Run one check."""
    try:
        found = check(workspace)
    except MovieRatingsError as error:
        return Finding(name, "failed", str(error))
    return Finding(name, "doubt" if isinstance(found, Doubt) else "ok", found)


# -- On this machine -------------------------------------------------------------------------------


def data(workspace: Workspace) -> str:
    """The configured data set exists, or can be made or downloaded."""
    config = workspace.config.data
    source, name = selected_class(config), name_of(config)
    if source.is_synthetic:
        return f"{source.expected_ratings(config):,} synthetic ratings"
    if config.path:
        return f"{name}, from {config.path}"
    if not needs_network(config, workspace.storage / "raw"):
        return f"{name}, downloaded before"
    try:
        check_reachable(archive_url(name, config.download_url))
    except DownloadError as error:
        if config.source != AUTO:
            raise
        return Doubt(f"{name} cannot be downloaded, so synthetic ratings are used instead: {error}")
    return f"{name}, to be downloaded from {config.download_url}"


def token(workspace: Workspace) -> str:
    """A credential for TMDb is of the kind that its variable is for."""
    config = workspace.config
    credentials = credentials_for(config.data, config.tmdb, os.environ)
    if credentials is not None:
        return f"{_kind(credentials)} in {credentials.variable}"
    if config.tmdb.enabled is False or selected_class(config.data).has_tmdb_records:
        return "not needed"
    return "none in the environment: features of TMDb are left out"


def access(workspace: Workspace) -> str:
    """Nobody else can use this user's Ray."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return Doubt(
            "RAY_AUTH_MODE=disabled: every program that can connect to this Ray can run code; "
            "leave it out, or set it to token"
        )
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if file.is_file() and os.name == "posix" and file.stat().st_mode & 0o077:
        return Doubt(
            f"other users of this machine can read {file}, with which they can run programs on "
            f"this Ray: chmod 600 {file}"
        )
    return f"by the token in {file}" if file.is_file() else "by a token, if Ray asks for one"


def ports(workspace: Workspace) -> str:
    """Other machines cannot connect to Ray's ports here, or need a token."""
    address = _outward_address()
    if address is None:
        return "this machine has no address that others could connect to"
    answering = [
        f"{port} ({what})" for port, what in _PORTS.items() if _accepts_connections(address, port)
    ]
    if not answering:
        return f"none of Ray's usual ports accepts connections at {address}"
    found = f"{', '.join(answering)} accept connections from other machines at {address}"
    if _asks_for_token(address):
        return f"{found}, and Ray asks for a token"
    return Doubt(
        f"{found}, and Ray does not ask for a token there: unless a firewall is between, every "
        "program there can run code here. Start Ray with RAY_AUTH_MODE=token (`ray get-auth-token "
        "--generate` makes one), or with --node-ip-address=127.0.0.1"
    )


def _asks_for_token(address: str) -> bool:
    """Whether the dashboard refuses a request without a token, as all of Ray then does."""
    url = f"http://{address}:{_DASHBOARD}/api/version"
    try:
        urllib.request.urlopen(url, timeout=2.0).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    except OSError:
        pass  # no dashboard: it is not known
    return False


def _outward_address() -> str | None:
    """The address by which this machine is known to others; None without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route; nothing is sent
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


def _accepts_connections(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _kind(credentials: Credentials) -> str:
    return "API Read Access Token (v4)" if credentials.headers else "API Key (v3)"


def storage(workspace: Workspace) -> str:
    """Files can be written and read back."""
    place = workspace.storage
    probe = place / f".probe-{uuid.uuid4().hex}"
    place.make_folder()
    try:
        probe.write_text("probe")
        if probe.read_bytes() != b"probe":
            raise StorageError(f"{place} gives back something else than was written")
    finally:
        _forget(probe)
    return f"{place} is writable"


def disk(workspace: Workspace) -> str:
    """There is room for what the job writes."""
    if not workspace.storage.is_local:
        return "not known of an object store"
    rows = num_ratings(workspace.config)
    needed = rows * _BYTES_ON_DISK + _DISK_BESIDE
    free = shutil.disk_usage(workspace.storage.path).free
    message = (
        f"{_gib(free)} free at {workspace.storage}, {_gib(needed)} needed for {rows:,} ratings"
    )
    if free < needed:
        raise StorageError(f"{message}. Free some, or name another place with --set storage=...")
    return message


def blend(workspace: Workspace) -> str:
    """The members of the blend can be fitted."""
    config, notes = workspace.config, list[str]()
    if not config.blend.members:
        return "none"
    rows = num_ratings(config)
    available({**BASELINES, **STACKED_MEMBERS}, rows, config.blend.members, notes.append)
    if notes:
        raise ConfigError(f"blend.members: {' '.join(notes)} Leave them out of blend.members")
    return ", ".join(config.blend.members)


def memory(workspace: Workspace) -> str:
    """The rows fit into memory, by an estimate made before they are read."""
    config = workspace.config
    rows = num_ratings(config)
    needed = rows * _BYTES_IN_MEMORY
    if config.train.rows == "resident" or config.model.history.encoders:  # else they are streamed
        here = 1 if joins_cluster(config) else config.scaling.world_size
        needed = max(needed, rows * (BYTES_OF_SHARED_ROW + here * BYTES_OF_TRAINING_ROW))
    needed += _MEMORY_BESIDE
    free = free_on_machine()
    message = f"{_gib(free)} available here, about {_gib(needed)} needed for {rows:,} ratings"
    if free < needed:
        return Doubt(f"{message}: Ray may end workers for want of memory")
    return message


def num_ratings(config: JobConfig) -> int:
    """How many ratings there are; estimated for data that were not read yet."""
    return selected_class(config.data).expected_ratings(config.data)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


# -- On the cluster --------------------------------------------------------------------------------


def resources(workspace: Workspace) -> str:
    """At least one training run fits, or may once the cluster has grown."""
    plan = GroupPlan.of(workspace.config)
    count, what = len(plan.fitting()), plan.preferred
    if count:
        return f"room for {count} training run(s) {what.description}"
    return Doubt(
        f"no room for workers of {what.of_a_worker}, for which nodes may be added: a job waits"
    )


def nodes(workspace: Workspace) -> str:
    """Every node has the driver's versions, and sees the same storage."""
    leaving = draining_nodes()
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    place = workspace.storage / f".probe-{uuid.uuid4().hex}"
    here = versions()
    try:
        place.make_folder()
        (place / "driver").write_text("driver")
        probes = {_name(node): _probe_on(node, place) for node in alive}
        answers = _answers(probes)
        for name, answer in answers.items():
            _compare(name, answer, here, workspace.storage)
        missing = [name for name in answers if not (place / name).exists()]
        if missing:
            raise ClusterError(_not_shared(workspace.storage, missing))
    finally:
        _forget(place)
    return f"{len(answers)} node(s), all with the driver's versions and the same storage"


def versions() -> dict[str, str]:
    """Of everything that must be the same on driver and workers."""
    # Without what tells builds apart: nodes with a GPU have another build of torch.
    packages = {name: version(name).partition("+")[0] for name in _SAME_EVERYWHERE}
    return {"python": platform.python_version()} | packages


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']}-{node['NodeID'][:8]}"


def _probe_on(node: Mapping[str, Any], place: Storage) -> ray.ObjectRef[Any]:
    where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    probe = ray.remote(_probe).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
    return probe.remote(place, _name(node))


def _probe(place: Storage, name: str) -> dict[str, Any]:
    """On a node: its versions, and what is wrong with the storage, if anything is."""
    problem = None
    try:
        if (place / "driver").exists():
            (place / name).write_text(name)
        else:
            problem = "does not see what the driver wrote"
    except (MovieRatingsError, OSError) as error:
        problem = str(error)
    return {"versions": versions(), "problem": problem}


def _answers(probes: Mapping[str, ray.ObjectRef[Any]]) -> dict[str, dict[str, Any]]:
    """Wait for the answers of the nodes, without those that leave meanwhile."""
    found, waiting = dict[str, dict[str, Any]](), Waiting()
    pending = {answer: name for name, answer in probes.items()}
    while pending:
        ready, _ = ray.wait(list(pending), timeout=_SECONDS_BETWEEN_LOOKS)
        for answer in ready:
            name = pending.pop(answer)
            try:
                found[name] = ray.get(answer)
            except RayError as error:
                if name in {_name(node) for node in ray.nodes() if node["Alive"]}:
                    raise ClusterError(_cannot_run(name, error)) from error
        waiting.update(f"a worker of node {', '.join(pending.values())}", is_over=not pending)
    return found


def _cannot_run(name: str, error: RayError) -> str:
    return (
        f"node {name} cannot run this project: {str(error).strip().splitlines()[-1]}. Install "
        "requirements-runtime.lock there, and send the code with `ray job submit --working-dir .`"
    )


def _compare(
    name: str, answer: Mapping[str, Any], here: Mapping[str, str], storage: Storage
) -> None:
    differ = [
        f"{package} {answer['versions'][package]} instead of {wanted}"
        for package, wanted in here.items()
        if answer["versions"][package] != wanted
    ]
    if differ:
        raise ClusterError(
            f"node {name} has {', '.join(differ)}. Install requirements-runtime.lock on every node."
        )
    if answer["problem"]:
        raise ClusterError(f"{_not_shared(storage, [name])} There: {answer['problem']}.")


def _not_shared(storage: Storage, names: list[str]) -> str:
    return (
        f"storage = {storage} is not the same place on every node: {', '.join(names)} cannot use "
        "what the driver writes. Name one that all nodes share: a mounted network folder, or a URI "
        "such as s3://bucket/folder (--set storage=...)."
    )


def _forget(place: Storage) -> None:
    with contextlib.suppress(OSError):  # the cause has been reported before
        place.delete()


HERE: Final[Mapping[str, Check]] = {
    "data": data,
    "token": token,
    "storage": storage,
    "disk": disk,
    "memory": memory,
    "blend": blend,
    "mlflow": lambda workspace: reach_mlflow(workspace.config),
    "access": access,
    "ports": ports,
}
_AFTER_DATA: Final = ("disk", "memory", "blend")
"""Checks that need the number of ratings."""

ON_CLUSTER: Final[Mapping[str, Check]] = {"resources": resources, "nodes": nodes}
