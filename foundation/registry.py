"""Registries: tables from names that a configuration may use to the code behind them.

The code is given as ``module:name`` and imported only where it is needed, so that reading a
configuration imports neither the implementations nor the libraries that they need.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def implementation(path: str) -> Any:
    """What ``path``, a ``module:name``, refers to; imports the module."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
