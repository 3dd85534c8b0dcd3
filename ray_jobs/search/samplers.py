"""The samplers of ``tune.sampler``: which configuration is tried next.

A sampler is one of Optuna's that draws from a seeded generator and learns from how trials end.
Another one is an entry in ``SAMPLERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from foundation.errors import ConfigError


@dataclass(frozen=True)
class SamplerSpec:
    """How to make a sampler."""

    make: Callable[[int], BaseSampler]
    """Takes the seed."""
    packages: tuple[str, ...] = ()
    """Packages that it needs beside Optuna, by their names for import and for ``pip``."""


def sampler(name: str, seed: int) -> BaseSampler:
    """A new sampler.

    Raises:
        ConfigError: if there is none of this name, or a package is missing that it needs.
    """
    check_packages(name)
    return SAMPLERS[name].make(seed)


def check_sampler(name: str) -> None:
    """Refuse a name that no sampler has.

    Raises:
        ConfigError: which names the samplers.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"tune.sampler = {name!r} is none of {', '.join(map(repr, SAMPLERS))}")


def check_packages(name: str) -> None:
    """Refuse a sampler that cannot be made here.

    Raises:
        ConfigError: if there is none of this name, or with the command that installs what is
            missing.
    """
    check_sampler(name)
    missing = [package for package in SAMPLERS[name].packages if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"tune.sampler = {name!r} needs packages that are not installed: "
            f"`pip install {' '.join(missing)}`, or choose another sampler"
        )


SAMPLERS: Final[Mapping[str, SamplerSpec]] = {
    # Models the good and the bad trials apart, each setting by itself; its first ten are random.
    "tpe": SamplerSpec(lambda seed: TPESampler(seed=seed)),
    "random": SamplerSpec(lambda seed: RandomSampler(seed=seed)),
    # Adapts a normal distribution over the ranges. Settings with choices are drawn at random, and
    # Optuna logs a warning for each of them.
    "cmaes": SamplerSpec(lambda seed: CmaEsSampler(seed=seed), ("cmaes",)),
    # A Gaussian process of the metric; its time grows with the cube of the number of trials.
    "gp": SamplerSpec(lambda seed: GPSampler(seed=seed), ("torch", "scipy")),
}
"""Each sampler, by the values of ``tune.sampler``."""
