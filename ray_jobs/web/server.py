"""Serve the page and its API: on a local Ray until interrupted, or on a cluster."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Sequence
from typing import Final

from foundation.errors import ConfigError
from foundation.storage import Storage
from ray_jobs.cluster.session import ensure_ray, joins_cluster, leave_ray
from ray_jobs.config import JobConfig
from ray_jobs.errors import NoModelError, ResourceError, ServingError
from ray_jobs.results.final_model import final_model, load_recommender
from ray_jobs.results.run import Workspace

logger = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"


def serve(config: JobConfig, checkpoint: str | None, host: str, port: int) -> None:
    """Serve until interrupted; on a cluster, until it is ended there.

    Args:
        config: names the run, and says how many replicas to start.
        checkpoint: folder of the model; None takes the final model of the run.
        host: address to listen at.
        port: port to listen at.

    Raises:
        ConfigError: if an impossible address is named.
        NoModelError: if there is no checkpoint.
        CheckpointError: if it cannot be read.
        ResourceError: if the replicas do not fit.
        ServingError: if a package is missing, the port is taken, or Ray Serve fails.
    """
    _refuse_missing_packages()
    from ray_jobs.web.about import describe
    from ray_jobs.web.on_cluster import serve_on_cluster

    stored = _stored(config, checkpoint)
    about = describe(stored, load_recommender(stored))  # fails before Ray starts
    is_loopback = _is_loopback(host)
    hosts = allowed_hosts(host, is_loopback=is_loopback)
    if not joins_cluster(config):
        _refuse_taken_port(host, port)
        _refuse_too_many_replicas(config)
    logger.info(f"model: {stored}, {about.num_movies:,} movies")
    if not about.takes_ratings:
        logger.info(
            "note: this model cannot use the ratings of a new user, so the page offers search "
            "and similar movies alone; one with model.history.encoders can, such as that of "
            'configs/models/gaussian-process.toml, and so can a choice model (task = "both")'
        )
    if not is_loopback:
        logger.info(
            f"note: --host {host} lets every machine on the network use the page, without a "
            "password and unencrypted. Put a proxy that adds both in front of it, or leave --host "
            "out."
        )
    if joins_cluster(config):
        serve_on_cluster(config, stored, host, port, hosts)
    else:
        _serve_here(config, stored, host, port, hosts)


def _serve_here(
    config: JobConfig, stored: Storage, host: str, port: int, hosts: Sequence[str]
) -> None:
    from ray_jobs.web.deployment import deploy

    try:
        ensure_ray(config)
        deploy(stored, host, port, hosts, config.serve.min_replicas)
        logger.info(f"serving at http://{host}:{port} until Ctrl-C")
        threading.Event().wait()
    finally:
        leave_ray()


def _refuse_missing_packages() -> None:
    try:
        import fastapi  # noqa: F401
        from ray import serve  # noqa: F401
    except ImportError as error:
        raise ServingError(
            f"the page needs Ray Serve, which is not installed ({error}). Install it with "
            "pip install 'movielens-ray-tune[serve]', or in a checkout of the repository with "
            "pip install -e '.[serve]'."
        ) from error


def _stored(config: JobConfig, folder: str | None) -> Storage:
    if folder is None:
        return final_model(Workspace(config))
    stored = Storage.at(folder)
    if not stored.exists():
        raise NoModelError(f"there is no folder {stored}; --checkpoint takes that of a checkpoint")
    return stored


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"--host is {host!r}, which is no IPv4 address or name of this machine: {reason}"
        ) from error


def allowed_hosts(host: str, *, is_loopback: bool) -> tuple[str, ...]:
    """Names that requests may call the server by: on loopback those of this machine, and the one
    that is announced.
    """
    return (LOOPBACK, "localhost", "[::1]", host.lower()) if is_loopback else ("*",)


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServingError(
                f"cannot listen at port {port} of {host}: {error.strerror}. Name another one with "
                "--port, or stop the program that has it."
            ) from error


def _refuse_too_many_replicas(config: JobConfig) -> None:
    cpus = config.ray.num_cpus or os.cpu_count() or 1
    if config.serve.min_replicas > cpus:
        raise ResourceError(
            f"serve.replicas = {config.serve.min_replicas} need a CPU each, and a local Ray has "
            f"{cpus} here. Ask for less."
        )
