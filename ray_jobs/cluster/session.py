"""Starts or joins Ray without its own log lines, and leaves it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from foundation.console import has_colours
from ray_jobs.cluster.head_watch import watching_the_head
from ray_jobs.cluster.ray_internals import newest_cluster, pass_messages_to
from ray_jobs.cluster.resources import Resources
from ray_jobs.config import JobConfig
from ray_jobs.errors import ResourceError

logger = logging.getLogger(__name__)

_RAY_ENVIRONMENT: Final = {
    # Train's controller looks at its workers once in this many seconds, and a report waits for it.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Workers read and write absolute paths only; changing folders would break relative imports.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Tables of trials come from this project's own callback.
    "RAY_AIR_NEW_OUTPUT": "0",
    # So do the reasons of failures; their tracebacks are in the trial's folder.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_DATA_LOG_INTERNAL_STACK_TRACE_TO_STDOUT": "0",
    # Else Ctrl-C makes Tune return what it has so far, as if the search had finished.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Announced default of a later Ray, and the one wanted for a driver that holds no GPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_LOCAL_ENVIRONMENT: Final = {
    # This machine is not preempted: one process fewer for each training run.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray reports usage statistics by default, which is for the user to decide.
    "RAY_USAGE_STATS_ENABLED": "0",
}


_API_SERVER: Final = "RAY_API_SERVER_ADDRESS"


_COLOURS: Final = "RAY_COLOR_PREFIX"
"""0 keeps colours out of what Ray itself prints, which it adds in files and pipes too."""


_PORTS_TRIED: Final = 100


_SECONDS_TO_ANSWER: Final = 10.0
"""How long the head of a cluster may take to accept a connection."""


_STARTS_TRIED: Final = 3
"""How often a local Ray is tried: on a busy machine its dashboard may come too late for Ray."""


LOGS: Final = "the folder session_latest/logs of Ray's temporary folder"


@contextlib.contextmanager
def ray_session(config: JobConfig) -> Iterator[None]:
    """Refuse what can never run, and leave Ray at the end of the block.

    A cluster is joined at once. A local Ray is started by ``ensure_ray`` when a stage needs it.

    Raises:
        ResourceError: if the cluster cannot be reached, or training asks for more than there is.
    """
    try:
        if joins_cluster(config):
            ensure_ray(config)
            Resources.of(config)
            with watching_the_head():
                yield
        else:
            _refuse_more_than_this_machine(config)
            yield
    finally:
        leave_ray()


def joins_cluster(config: JobConfig) -> bool:
    """Whether the job runs on a Ray that is there already."""
    return bool(_address(config))


def _address(config: JobConfig) -> str | None:
    return config.ray.address or os.environ.get("RAY_ADDRESS")


def _refuse_more_than_this_machine(config: JobConfig) -> None:
    cpus = config.ray.num_cpus or os.cpu_count() or 1
    wanted = config.scaling.min_workers * config.scaling.cpus_per_worker
    if wanted > cpus:
        raise ResourceError(
            f"scaling.num_workers = {config.scaling.min_workers} workers with "
            f"scaling.cpus_per_worker = {config.scaling.cpus_per_worker} need {wanted} CPUs, and a "
            f"local Ray has {cpus} here. Ask for less, or name a cluster with --set ray.address=..."
        )


def leave_ray() -> None:
    """Stop the local Ray that ``ensure_ray`` started, or leave the cluster that it joined."""
    ray.shutdown()
    for name in (*_RAY_ENVIRONMENT, *_LOCAL_ENVIRONMENT, _COLOURS, _API_SERVER):
        os.environ.pop(name, None)


def ensure_ray(config: JobConfig) -> None:
    """Join or start Ray, unless that was done: a run whose stages are all done needs none.

    Raises:
        ResourceError: if the cluster named in the configuration cannot be reached, or a local Ray
            does not start.
    """
    if ray.is_initialized():
        return
    _quieten()
    address = _address(config)
    dashboard = _join(address, config) if address else _start_local(config)
    if not dashboard:
        raise ResourceError(
            "this Ray cluster runs without its dashboard, whose state API Ray Train needs to give "
            "back the CPUs of stopped trials. Start it with "
            "`ray start --head --include-dashboard=true`."
        )
    logger.info(f"   Ray dashboard: http://{dashboard}")
    ray.data.DataContext.get_current().enable_progress_bars = False


def _join(address: str, config: JobConfig) -> str:
    try:
        _knock(address)
        variables = _environment(_RAY_ENVIRONMENT)
        os.environ.update(variables)
        return _init(config, address=address, runtime_env={"env_vars": variables})
    except (OSError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"cannot reach the Ray cluster at {address}: {error}. "
            "Start one with `ray start --head`, or leave ray.address empty to have one started."
        ) from error


def _knock(address: str) -> None:
    """Raise ``OSError`` if no program listens at an address; Ray itself would try for minutes."""
    if address == "auto":
        # What Ray noted of the cluster that was started last on this machine.
        address = newest_cluster()
    host, _, port = address.rpartition("/")[2].rpartition(":")  # without the scheme, as in ray://
    if port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER):
            pass


def _start_local(config: JobConfig) -> str:
    """Start a Ray of our own, on another port if the dashboard's is taken meanwhile."""
    port, failure = config.ray.dashboard_port, ""
    for _ in range(_STARTS_TRIED):
        options = _local_options(config, _free_port(port))
        port = options["dashboard_port"] + 1
        # Without this, Ray Train's helpers look for the dashboard of the latest Ray started on the
        # machine, which may be another run's, and never give back the CPUs of stopped trials.
        api_server = {_API_SERVER: f"http://127.0.0.1:{options['dashboard_port']}"}
        # Its processes inherit them. With a runtime environment of the job they would not be used
        # for it, and others be started.
        os.environ.update(_environment(_RAY_ENVIRONMENT | _LOCAL_ENVIRONMENT) | api_server)
        try:
            return _init(config, **options)
        except Exception as error:  # a dashboard that fails raises nothing narrower
            ray.shutdown()
            failure = (str(error).strip() or repr(error)).splitlines()[-1]
    raise ResourceError(
        f"a local Ray did not start in {_STARTS_TRIED} attempts, at last because of: {failure} "
        f"Its logs are in {LOGS}. If there is a cluster, name it with --set ray.address=..."
    )


def _environment(defaults: dict[str, str]) -> dict[str, str]:
    """``defaults``, and those of colours, unless the user's environment says otherwise."""
    plain = {} if has_colours() else {_COLOURS: "0"}
    return {name: os.environ.get(name, value) for name, value in (defaults | plain).items()}


def _init(config: JobConfig, **options: Any) -> str:
    """``ray.init`` without its own lines; returns the dashboard's URL."""
    of_program = signal.getsignal(signal.SIGTERM)
    context = ray.init(
        log_to_driver=False,
        logging_level=logging.ERROR,
        # Shown with the job, beside its id.
        job_config=ray.job_config.JobConfig(metadata={"run": config.name}),
        **options,
    )
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler prints the stack of its libraries.
        signal.signal(signal.SIGTERM, of_program)
    return context.dashboard_url or ""


def _local_options(config: JobConfig, dashboard_port: int) -> dict[str, Any]:
    """Options of a Ray of our own."""
    options: dict[str, Any] = {
        # Else Ray joins any instance it finds on the machine, such as that of another run, and
        # falls with it.
        "address": "local",
        # Not only for looking: Train asks the dashboard's state API whether a stopped trial's
        # controller is gone, and gives its workers' CPUs back only then.
        "include_dashboard": True,
        "dashboard_port": dashboard_port,
    }
    return options | ({"num_cpus": config.ray.num_cpus} if config.ray.num_cpus else {})


def _free_port(first: int) -> int:
    """The first port from ``first`` on that no program listens at."""
    for port in range(first, min(first + _PORTS_TRIED, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ResourceError(
        f"no free port for Ray's dashboard from {first} on: name another with "
        "--set ray.dashboard_port=..."
    )


_LOST_NODE: Final = re.compile(r"The node with node id: .* and address: (\S+) .*marked dead")
_LONGEST_MESSAGE: Final = 200


_IGNORED: Final = "PYTHON worker processes have been started"
"""In a message about the number of actors, which is intended."""


def sentence_of(message: str) -> str | None:
    """What a message of Ray about nodes or workers says, without logs and states; None if a
    user need not know it."""
    if _IGNORED in message:
        return None
    lost = _LOST_NODE.search(message)
    if lost:
        return f"node {lost[1]} was lost"
    if message.lstrip().startswith("Raylet is terminated"):
        return "a node was lost, or its Ray was stopped"
    first = (message.strip().splitlines() or [""])[0]
    return first if len(first) <= _LONGEST_MESSAGE else f"{first[:_LONGEST_MESSAGE].rstrip()} ..."


def _quieten() -> None:
    """Keep Ray's own messages in its log files; its errors are raised here as exceptions."""
    pass_messages_to(_log)
    for name in ("ray.data", "ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A dashboard that does not start is retried, and at last raised as an exception too.
    logging.getLogger("ray._private.services").setLevel(logging.CRITICAL)
    # It repeats which trials failed.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    logging.getLogger("optuna").setLevel(logging.WARNING)


def _log(message: str) -> None:
    sentence = sentence_of(message)
    if sentence:
        logger.info("   note: %s", sentence)


def beside_the_driver() -> dict[str, Any]:
    """Options of an actor that serves the driver: it takes no CPU and is lost with it alone."""
    node = ray.get_runtime_context().get_node_id()
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return {"num_cpus": 0, "scheduling_strategy": where}
