"""Metrics that are undefined, such as R² of ratings that are all equal: NaN here, null in files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Annotated, Any

from pydantic import BeforeValidator


def nan_for_null(value: Any) -> Any:
    """``value``, or NaN for None; in dictionaries and lists for each value in them."""
    if isinstance(value, dict):
        return {key: nan_for_null(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [nan_for_null(part) for part in value]
    return math.nan if value is None else value


Metric = Annotated[float, BeforeValidator(nan_for_null)]
"""A number, or NaN where it is undefined."""
Metrics = Annotated[dict[str, Any], BeforeValidator(nan_for_null)]
"""Numbers by name, perhaps nested."""


def shown(value: float, form: str = ".4f") -> str:
    """A metric for people."""
    return "undefined" if math.isnan(value) else format(value, form)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation if there are several; NaN if one of them is undefined."""
    if any(math.isnan(value) for value in values):
        return math.nan, math.nan if len(values) > 1 else None
    return mean(values), stdev(values) if len(values) > 1 else None
