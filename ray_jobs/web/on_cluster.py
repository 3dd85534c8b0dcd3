"""Serve the page on a Ray cluster, which goes on when the command ends."""

from __future__ import annotations

import logging
import threading
from typing import Final

from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, LoggingConfig, ServeStatus

from foundation.storage import Storage
from ray_jobs.cluster.session import ensure_ray, leave_ray
from ray_jobs.cluster.waiting import Waiting
from ray_jobs.config import JobConfig
from ray_jobs.errors import ServingError
from ray_jobs.web.application import ServedModel, page

logger = logging.getLogger(__name__)

NAME: Final = "movies"
"""Of the application on the cluster: another model under this name replaces the one that is
served."""
_SECONDS_BETWEEN_LOOKS: Final = 0.5


def serve_on_cluster(
    config: JobConfig, stored: Storage, host: str, port: int, hosts: tuple[str, ...]
) -> None:
    """Deploy the page, and return when it answers.

    If it is served there already, new replicas are started beside those that serve, and then take
    their place, so that no request is refused.

    Raises:
        ResourceError: if the cluster cannot be reached.
        ServingError: if Ray Serve cannot start it; what was served before is still served.
    """
    try:
        ensure_ray(config)
        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
        has_started = bool(serve.status().proxies)
        # The address that it was started with is not known here, nor who may use it.
        model = ServedModel(checkpoint=str(stored), hosts=("*",) if has_started else hosts)
        try:
            _deploy(page(model, config.serve), host, port)
        except (RayServeException, TimeoutError) as error:
            raise ServingError(f"Ray Serve cannot serve the page: {error}") from error
        _wait_until_it_runs()
    finally:
        leave_ray()
    _announce(host, port, has_started=has_started)


def _deploy(application: serve.Application, host: str, port: int) -> None:
    serve.start(
        proxy_location=ProxyLocation.EveryNode,
        http_options={"host": host, "port": port},
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    serve.run_many(
        [serve.RunTarget(application, NAME, route_prefix="/")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def _wait_until_it_runs() -> None:
    waiting, pause = Waiting(), threading.Event()
    while True:
        status = serve.status()
        state = status.applications[NAME].status if NAME in status.applications else None
        if state == ApplicationStatus.RUNNING:
            return
        if state in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise ServingError(f"Ray Serve could not start the page: {_reason(status)}")
        waiting.update("a replica of the page, which needs a CPU", is_over=False)
        pause.wait(_SECONDS_BETWEEN_LOOKS)


def _reason(status: ServeStatus) -> str:
    """Last line of what Serve says, which is that of an exception."""
    application = status.applications[NAME]
    messages = [application.message, *(each.message for each in application.deployments.values())]
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason; see `serve status`"


def _announce(host: str, port: int, *, has_started: bool) -> None:
    if has_started:
        logger.info(
            "note: Ray Serve ran on this cluster already, and keeps the address and port that it "
            "was started with; requests may use any host name"
        )
        where = "at that address"
    else:
        where = f"at http://{host}:{port}"
    logger.info(
        f"serving {where} of every node with a replica, until `serve shutdown`. The same command "
        "with another model replaces this one without refusing a request."
    )
