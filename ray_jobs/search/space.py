"""The search space as Ray Tune's domains, and the values that come back from it.

Optuna's categories are scalars, so that lists and tables are JSON texts there. ``domains`` encodes
them, ``decoded`` restores what the sampler suggests, and everywhere else a trial's parameters are
the values themselves. ``encoded`` is for the sampler, and for columns of trials.parquet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ray import tune

from ray_jobs.config import Dimension


def domains(space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Ray Tune's domain of each searched setting."""
    return {key: _domain(dimension) for key, dimension in space.items()}


def decoded(space: Mapping[str, Dimension], suggestion: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a sampler's ``suggestion`` from ``domains(space)`` stands for."""
    return {
        key: json.loads(value) if value in _texts(space[key]) else value
        for key, value in suggestion.items()
    }


def encoded(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``parameters`` with scalars alone: lists and tables as JSON texts."""
    return {key: _scalar(value) for key, value in parameters.items()}


def point_of(space: Mapping[str, Dimension], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters that give the ``settings`` as they are, nested by section; None if some are
    not in the space.
    """
    point: dict[str, Any] = {}
    for key, dimension in space.items():
        value: Any = settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not _has(dimension, value):
            return None
        point[key] = value
    return point


def _has(dimension: Dimension, value: Any) -> bool:
    if dimension.choices:
        return value in dimension.choices
    low, high = dimension.low or 0.0, dimension.high or 0.0
    return isinstance(value, (int, float)) and low <= value <= high


def _domain(dimension: Dimension) -> Any:
    if dimension.choices:
        return tune.choice([_scalar(choice) for choice in dimension.choices])
    low, high = dimension.low, dimension.high
    if dimension.integer:
        ends = int(low or 0), int(high or 0) + 1
        return tune.lograndint(*ends) if dimension.log else tune.randint(*ends)
    return tune.loguniform(low, high) if dimension.log else tune.uniform(low, high)


def _texts(dimension: Dimension) -> set[str]:
    """The texts that stand for the dimension's lists and tables."""
    return {_scalar(choice) for choice in dimension.choices if not _is_scalar(choice)}


def _scalar(value: Any) -> Any:
    return value if _is_scalar(value) else json.dumps(value)


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, (tuple, list, dict))
