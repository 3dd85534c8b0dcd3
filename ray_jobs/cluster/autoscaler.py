"""What an autoscaler may add to the cluster, and asking it for more."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import ray
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup

from ray_jobs.cluster.ray_internals import autoscaler_state, cancel_request, request_nodes

NAME: Final = "movie-ratings"
"""Begins the names of requests to the autoscaler."""

_ANSWERS: Final = 2
_SECONDS_FOR_AN_ANSWER: Final = 60.0
_SECONDS_BETWEEN_LOOKS: Final = 0.2

_SECONDS_OF_A_REQUEST: Final = 60.0
_SECONDS_BETWEEN_REQUESTS: Final = 20.0

_MOST: Final = 64
"""Worker groups that are asked for at a time."""


Setting = Literal["auto", True, False]
"""``ray.autoscaling``."""


def may_grow(setting: Setting) -> bool:
    """Whether nodes may be added to the cluster."""
    return autoscaler_state() is not None if setting == "auto" else setting


def may_ever_hold(bundles: list[dict[str, float]], setting: Setting) -> bool:
    """Whether nodes may be added that have room for these bundles.

    Asks the autoscaler for them, and waits until it has answered.
    """
    if setting != "auto":
        return setting
    state = autoscaler_state()
    if state is None:
        return False
    group = placement_group(bundles, name=_name())
    deadline, versions = time.monotonic() + _SECONDS_FOR_AN_ANSWER, {state.version}
    try:
        # The first answer may have been on its way before the question.
        while len(versions) <= _ANSWERS and time.monotonic() < deadline:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            state = autoscaler_state() or state
            versions.add(state.version)
        return not any(_same(bundles, each) for each in state.infeasible)
    finally:
        _remove(group)


def _same(first: Iterable[Mapping[str, float]], second: Iterable[Mapping[str, float]]) -> bool:
    def comparable(bundles: Iterable[Mapping[str, float]]) -> list[list[tuple[str, float]]]:
        return sorted(sorted(bundle.items()) for bundle in bundles)

    return comparable(first) == comparable(second)


class Demand:
    """A request to the autoscaler for nodes, beside those that hold the worker groups there are."""

    def __init__(self) -> None:
        self._requester = _name()
        self._asked: tuple[float, int] | None = None
        """When the autoscaler was asked, and for how many groups."""

    def ask_for(self, bundles: list[dict[str, float]], count: int) -> None:
        """Ask for room for ``count`` worker groups with these bundles; to be called again and
        again, as a request expires."""
        count, now = min(count, _MOST), time.monotonic()
        if not count:
            self.end()
        elif (
            self._asked is None
            or self._asked[1] != count
            or now - self._asked[0] > _SECONDS_BETWEEN_REQUESTS
        ):
            request_nodes(self._requester, bundles * count, _SECONDS_OF_A_REQUEST)
            self._asked = now, count

    def end(self) -> None:
        """Ask for nothing any more."""
        if self._asked is not None:
            cancel_request(self._requester)
            self._asked = None


def _name() -> str:
    """No other placement group may have it."""
    return f"{NAME} {uuid.uuid4().hex[:8]}"


def _remove(group: PlacementGroup) -> None:
    with contextlib.suppress(ray.exceptions.RayError):
        remove_placement_group(group)
