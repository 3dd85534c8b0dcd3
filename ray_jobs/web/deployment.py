"""Ray Serve keeps replicas with the model, each of which answers HTTP itself."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from collections.abc import Sequence
from typing import Final

import torch
import uvicorn
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.schema import LoggingConfig

from foundation.storage import Storage
from ray_jobs.cluster.session import LOGS
from ray_jobs.errors import ServingError
from ray_jobs.results.final_model import load_recommender
from ray_jobs.results.people import read_people
from ray_jobs.web.about import describe
from ray_jobs.web.app import make_app
from ray_jobs.web.door import MOST_CONNECTIONS, Door

_TRIED_TO_LOAD: Final = 2
_BACKLOG: Final = 2048
"""Connections that may wait to be accepted."""


class Page:
    """A replica: the model, the application that uses it, and its HTTP server.

    Requests do not pass through Serve, whose proxy and replica take 3 ms of a CPU each for a
    request, some 20 times as long as this server. All replicas listen at the same port, and the
    system divides new connections among them.
    """

    def __init__(self, stored: Storage, host: str, port: int, hosts: Sequence[str]) -> None:
        torch.set_num_threads(1)
        model = load_recommender(stored)
        app = make_app(model, describe(stored, model), hosts, read_people(stored))
        server = uvicorn.Server(
            # Requests contain what users search for and rate, so they are not logged.
            uvicorn.Config(
                app,
                http=Door,
                limit_concurrency=MOST_CONNECTIONS,
                lifespan="off",
                log_config=None,
                access_log=False,
            )
        )
        # The garbage collector need not look at the model and the libraries again.
        gc.collect()
        gc.freeze()
        # Connections may come from here on; they are answered once the server runs.
        sockets = [listening(host, port)]
        self._server = threading.Thread(target=server.run, args=(sockets,), daemon=True)
        self._server.start()

    def check_health(self) -> None:
        """Serve replaces the replica if this raises.

        Raises:
            RuntimeError: if the HTTP server has ended.
        """
        if not self._server.is_alive():
            raise RuntimeError("the HTTP server of the page has ended")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at a port, which other replicas may listen at too.

    Raises:
        OSError: if this is not possible.
    """
    shared = hasattr(socket, "SO_REUSEPORT")
    return socket.create_server((host, port), backlog=_BACKLOG, reuse_port=shared)


def deploy(stored: Storage, host: str, port: int, hosts: Sequence[str], replicas: int) -> None:
    """Serve the page for the model in ``stored`` on the running Ray, until Ray shuts down.

    ``hosts``: see ``make_app``.

    Raises:
        ServingError: if Ray Serve cannot start it.
    """
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    page = serve.deployment(
        Page,
        num_replicas=replicas,
        max_constructor_retry_count=_TRIED_TO_LOAD,
        logging_config=quiet,
    )
    try:
        serve.start(proxy_location=ProxyLocation.Disabled, logging_config=quiet)
        serve.run(page.bind(stored, host, port, hosts), name="page", route_prefix=None)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ServingError(
            f"Ray Serve could not start the page: {reason} Its logs are in {LOGS}/serve."
        ) from error
