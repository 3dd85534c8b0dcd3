"""A page to try the final model, and its API.

Uses the model that ``python -m ray_jobs.train`` made, and trains nothing. Search for
films, rate some, and get recommendations with reasons, in a browser or as JSON (docs/serve.md). It
runs on a local Ray of its own until Ctrl-C, and only programs on this machine reach it, unless
--host says otherwise.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import socket
import threading
from typing import Final

from foundation.errors import ConfigError
from foundation.storage import Storage
from ray_jobs.cli import main
from ray_jobs.cluster.session import ensure_ray, joins_cluster, leave_ray
from ray_jobs.config import JobConfig
from ray_jobs.errors import NoModelError, ResourceError, ServingError
from ray_jobs.results.final_model import final_model, load_model
from ray_jobs.results.run import Workspace

logger = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"


def run(config: JobConfig, options: argparse.Namespace) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: if a cluster or an impossible address is named.
        NoModelError: if there is no checkpoint.
        CheckpointError: if it cannot be read.
        ResourceError: if the replicas do not fit.
        ServingError: if a package is missing, the port is taken, or Ray Serve fails.
    """
    _refuse_missing_packages()
    from ray_jobs.web.about import describe
    from ray_jobs.web.deployment import deploy

    if joins_cluster(config):
        raise ConfigError(
            "a Ray cluster is named, by ray.address or the environment variable RAY_ADDRESS, but "
            "the page is served by a Ray of its own on this machine: leave both empty"
        )
    stored = _stored(config, options.checkpoint)
    about = describe(stored, load_model(stored))  # what is wrong with it is told before Ray starts
    is_loopback = _is_loopback(options.host)
    _refuse_taken_port(options.host, options.port)
    _refuse_too_many_replicas(config)
    logger.info(f"model: {stored}, {about.num_movies:,} movies")
    if not about.takes_ratings:
        logger.info(
            "note: this model cannot use the ratings of somebody new, so the page offers search "
            "and similar movies alone; one with model.history.encoders can, such as that of "
            "configs/models/gaussian-process.toml"
        )
    try:
        ensure_ray(config)
        hosts = allowed_hosts(options.host, is_loopback=is_loopback)
        deploy(stored, options.host, options.port, hosts, config.serve.replicas)
        _announce(options.host, options.port, is_loopback)
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
    if config.serve.replicas > cpus:
        raise ResourceError(
            f"serve.replicas = {config.serve.replicas} need a CPU each, and a local Ray has {cpus} "
            "here. Ask for less."
        )


def _announce(host: str, port: int, is_loopback: bool) -> None:
    if not is_loopback:
        logger.info(
            f"note: --host {host} lets every machine on the network use the page, without a "
            "password and unencrypted. Put a proxy that adds both in front of it, or leave --host "
            "out."
        )
    logger.info(f"serving at http://{host}:{port} until Ctrl-C")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this command alone."""
    parser.add_argument(
        "--checkpoint", metavar="FOLDER", help="serve this model instead of the run's kept one"
    )
    parser.add_argument("--port", type=_port, default=8000, help="port of the page (8000)")
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help=f"address to listen at ({LOOPBACK}: this machine alone); 0.0.0.0 lets everybody in "
        "who reaches this machine",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"not a port from 1 to 65535: {text!r}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(
        main(
            __doc__ or "",
            run,
            add_options=add_options,
            examples=(
                "--config configs/models/gaussian-process.toml",
                "--checkpoint artifacts/runs/gaussian-process/checkpoint --port 8001",
            ),
            when_interrupted="interrupted; the page is no longer served",
            has_stages=False,
        )
    )
