"""The application on Ray Serve: one HTTP proxy, and replicas that hold the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.config import BackpressureConfig, HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from foundation.storage import Storage
from ncf.inference.recommender import Recommender
from ray_jobs.cluster.session import LOGS
from ray_jobs.errors import ServingError
from ray_jobs.results.final_model import load_model
from ray_jobs.web.about import describe
from ray_jobs.web.app import MOST_WAITING, make_app

_AT_A_REPLICA: Final = 4 * MOST_WAITING
"""Requests that Serve passes to a replica at once. More than the replica queues, so that the
replica refuses: Serve retries a full replica after up to half a second, which leaves it idle."""
_QUEUED: Final = MOST_WAITING
"""Requests queued in the proxy for each replica; Serve refuses further ones."""
_TRIED_TO_LOAD: Final = 2


@serve.ingress()
class Page:
    """A replica: the model and the application that uses it."""

    def __init__(self, stored: Storage, hosts: Sequence[str]) -> None:
        torch.set_num_threads(1)
        checkpoint = load_model(stored)
        self._app = make_app(Recommender(checkpoint), describe(stored, checkpoint), hosts)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application that Ray Serve sends requests to."""
        return self._app


def deploy(stored: Storage, host: str, port: int, hosts: Sequence[str], replicas: int) -> None:
    """Serve the page for the model in ``stored`` on the running Ray, until Ray shuts down.

    ``hosts``: see ``make_app``.

    Raises:
        ServingError: if Ray Serve cannot start it.
    """
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    # Requests contain what users search for and rate, so they are not logged.
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    page = serve.deployment(
        Page,
        num_replicas=replicas,
        max_ongoing_requests=_AT_A_REPLICA,
        max_queued_requests=_QUEUED * replicas,
        backpressure_config=BackpressureConfig(retry_after_s=1),
        max_constructor_retry_count=_TRIED_TO_LOAD,
        logging_config=quiet,
    )
    try:
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options=HTTPOptions(host=host, port=port),
            logging_config=quiet,
        )
        serve.run(page.bind(stored, hosts), name="page")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ServingError(
            f"Ray Serve could not start the page: {reason} Its logs are in {LOGS}/serve."
        ) from error
