"""The search space as Ray Tune's domains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ray import tune

from ray_jobs.config import Dimension


def domains(space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Ray Tune's domain of each searched setting."""
    return {key: _domain(dimension) for key, dimension in space.items()}


def _domain(dimension: Dimension) -> Any:
    """A Ray Tune domain; lists and tables travel as JSON, because Optuna's categories must be
    scalars."""
    if dimension.choices:
        return tune.choice([c if _is_scalar(c) else json.dumps(c) for c in dimension.choices])
    low, high = dimension.low, dimension.high
    if dimension.integer:
        ends = int(low or 0), int(high or 0) + 1
        return tune.lograndint(*ends) if dimension.log else tune.randint(*ends)
    return tune.loguniform(low, high) if dimension.log else tune.uniform(low, high)


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, (tuple, list, dict))
