"""The page as an application for Ray Serve, as named in ``deploy/serve.yaml``.

Requests come through Serve's HTTP proxies, which are on every node with a replica. They wait there
while replicas are replaced, and are divided among as many replicas as the load needs.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any, Final

import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig

from foundation.config import Section, build
from foundation.storage import Storage
from ray_jobs.config import ServeConfig
from ray_jobs.errors import NoModelError
from ray_jobs.results.final_model import load_recommender
from ray_jobs.results.people import read_people
from ray_jobs.web.about import describe
from ray_jobs.web.app import MOST_WAITING, make_app

DEPLOYMENT: Final = "Page"
_ONGOING: Final = 8.0
"""Requests that each replica should have, by which their number is chosen: those that wait
together are answered together, which takes a third of the time for each of eight."""


class ServedModel(Section):
    """``args`` of the application in a config file of Serve."""

    checkpoint: str
    """Folder of the models, which every node can read: on a shared disk, or a URI such as
    s3://bucket/ratings/runs/NAME/checkpoint."""
    hosts: tuple[str, ...] = ("*",)
    """Host names by which requests may call the page."""


def application(args: Mapping[str, Any]) -> serve.Application:
    """The page with the models that ``args``, a ``ServedModel``, names.

    Serve calls it for each ``serve deploy``. If it raises, what is served already stays: so it
    reads the models, before a replica that works makes room for one that cannot start.

    Raises:
        ConfigError: if an argument is missing, unknown or invalid.
        NoModelError: if there is no such folder.
        CheckpointError: if it cannot be read.
    """
    model = build(ServedModel, args, "the application's args")
    deployed = page(model, ServeConfig())
    load_recommender(Storage.at(model.checkpoint))
    return deployed


def page(model: ServedModel, config: ServeConfig) -> serve.Application:
    """The page with these models and this number of replicas.

    Raises:
        NoModelError: if there is no such folder.
    """
    stored = Storage.at(model.checkpoint)
    if not stored.exists():
        raise NoModelError(f"there is no folder {stored}; checkpoint takes that of a checkpoint")

    def app() -> FastAPI:
        torch.set_num_threads(1)
        recommender = load_recommender(stored)
        about = describe(stored, recommender)
        app = make_app(recommender, about, model.hosts, read_people(stored))
        # The garbage collector need not look at the model and the libraries again.
        gc.collect()
        gc.freeze()
        return app

    deployment = serve.deployment(
        name=DEPLOYMENT,
        max_ongoing_requests=MOST_WAITING,
        autoscaling_config=AutoscalingConfig(
            min_replicas=config.min_replicas,
            max_replicas=config.max_replicas,
            target_ongoing_requests=_ONGOING,
        ),
        # New replicas start beside the old ones: one that cannot start replaces none.
        max_surge_percent=100,
        ray_actor_options={"num_cpus": 1},
    )
    return deployment(serve.ingress(app)()).bind()
